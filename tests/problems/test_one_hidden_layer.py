import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsde import InputError
from jaxsde.problems import (
    DeepClassifier,
    Layers,
    LinearAutoencoder,
    MatrixSensing,
    Problem,
    TeacherStudent,
    breast_cancer,
    breast_cancer_classifier,
)

A = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 2.0], [-2.0, 1.0, 1.0], [0.5, 0.5, -3.0]])
Y = np.array([1.0, 0.0, 0.0, 1.0])
RNG = np.random.default_rng(8)
CODE = Layers(RNG.normal(size=(2, 3)), RNG.normal(size=(3, 2)))
G = RNG.normal(size=(4, 3, 3))
PROBES = (G + G.transpose(0, 2, 1)) / 2
U = RNG.normal(size=(3, 3))


def reconstruction(x):
    """(1/2n) Σⱼ |aⱼ - W₂ W₁ aⱼ|² + 0.2 |x|²."""
    errors = [a - x.second @ (x.first @ a) for a in A]
    return sum(e @ e for e in errors) / 8 + 0.2 * (np.sum(x.first**2) + np.sum(x.second**2))


def sensing(x):
    return sum((np.trace(P @ x @ x.T) - y) ** 2 for P, y in zip(PROBES, Y, strict=True)) / 8


CASES = {
    "autoencoder": (lambda: LinearAutoencoder(A, 2, 0.2), CODE, reconstruction),
    "sensing": (lambda: MatrixSensing(PROBES, Y), U, sensing),
}


@jax.jit
def hessian(problem, x):
    flat, unravel = ravel_pytree(x)
    return jax.hessian(lambda w: problem.loss(unravel(w)))(flat)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_closed_gradient_agree(name, precision):
    make, x, loss = CASES[name]
    problem, rtol = make(), 1e-5 if precision == "float32" else 1e-13

    @jax.jit
    def answers(x):
        return problem.loss(x), problem.gradient(x), Problem.gradient(problem, x)

    value, closed, automatic = answers(jax.tree.map(jnp.array, x))
    assert value.dtype == precision
    np.testing.assert_allclose(value, loss(x), rtol=rtol)
    for mine, its in zip(jax.tree.leaves(closed), jax.tree.leaves(automatic), strict=True):
        np.testing.assert_allclose(mine, its, rtol=rtol, atol=rtol * np.abs(its).max())


def test_the_origin_of_the_autoencoder_is_a_saddle(x64):
    origin = Layers(np.zeros((2, 3)), np.zeros((3, 2)))
    sigma = np.linalg.eigvalsh(A.T @ A / 4)
    for r in (0.0, 0.2):
        values = np.linalg.eigvalsh(hessian(LinearAutoencoder(A, 2, r), origin))
        np.testing.assert_allclose(values, np.sort(2 * r + np.repeat([*sigma, *-sigma], 2)))
        assert values[0] < 0


def test_the_autoencoder_learns_the_first_principal_axes(x64):
    """Along each axis u the product w₂ w₁ = p costs σ(1 - p)²/2 + 2rp, least at p = 1 - 2r/σ."""
    sigma, axes = np.linalg.eigh(A.T @ A / 4)
    r, first = 0.2, slice(1, 3)
    p = 1 - 2 * r / sigma[first]
    W = np.sqrt(p)[:, None] * axes[:, first].T
    x, problem = Layers(W, W.T), LinearAutoencoder(A, 2, r)
    for slope in problem.gradient(x):
        np.testing.assert_allclose(slope, 0, atol=1e-14)
    least = sigma[0] / 2 + np.sum(sigma[first] * (1 - p) ** 2 / 2 + 2 * r * p)
    assert float(problem.loss(x)) == pytest.approx(least, rel=1e-13)
    assert np.linalg.eigvalsh(hessian(problem, x))[0] > -1e-12


def test_sensing_has_the_papers_sizes_and_the_trace_of_its_hessian(x64):
    problem = MatrixSensing.random(3)
    assert problem.probes.shape == (10, 5, 5)
    x = problem.initial(1)
    np.testing.assert_allclose(problem.hessian_trace(x), np.trace(hessian(problem, x)), rtol=1e-12)


def measured_matrix(problem):
    """The symmetric matrix with these measurements, by least squares."""
    m, d, _ = problem.probes.shape
    matrix = np.linalg.lstsq(np.asarray(problem.probes).reshape(m, d * d), problem.targets)[0]
    return matrix.reshape(d, d)  # the shortest solution, so symmetric as the probes are


def test_sensing_is_solved_by_a_matrix_of_its_rank(x64):
    problem = MatrixSensing.random(3, dimension=5, rank=2, probes=15)  # 15 unknowns
    values, vectors = np.linalg.eigh(measured_matrix(problem))
    np.testing.assert_allclose(values[:3], 0, atol=1e-12)
    assert values[3] > 0.01
    x = np.zeros((5, 5))
    x[:, :2] = vectors[:, 3:] * np.sqrt(values[3:])
    assert problem.loss(x) < 1e-25
    np.testing.assert_allclose(problem.gradient(x), 0, atol=1e-12)


def test_the_teacher_is_a_perfect_student_but_for_the_offset(x64):
    alone, near, far = (
        TeacherStudent.random(2, 7, 5, 4, offset=offset, regularization=0.0)
        for offset in (0.0, 1.0, 2.0)
    )
    assert alone.loss(alone.teacher) == 0
    b = float(near.labels[0] - alone.labels[0])  # one for all rows
    assert near.loss(near.teacher) == pytest.approx(b**2, rel=1e-12)
    np.testing.assert_allclose(near.labels - alone.labels, np.full(7, b), rtol=1e-12)
    np.testing.assert_allclose(far.labels - alone.labels, np.full(7, 2 * b), rtol=1e-12)
    linear = TeacherStudent(A, Layers(CODE.second, CODE.first[:, 0]), 0.5, "linear")
    np.testing.assert_allclose(linear.labels, A @ CODE.second @ CODE.first[:, 0] + 0.5)


def test_random_tasks_have_their_laws(x64):
    """Standard deviations of 12,250 normals or more, 5 % wide: 7 or more standard errors."""
    task = TeacherStudent.random(0, rows=400, inputs=50, width=400)
    probes = np.asarray(MatrixSensing.random(0, dimension=50).probes)
    for sample, scale in (
        (task.features, 50**-0.5),
        (task.teacher.first, 400**-0.5),
        (task.initial(1).first, 400**-0.5),
        (DeepClassifier(np.ones((1, 50)), [1.0], 400).initial(2).first, 400**-0.5),
        (LinearAutoencoder(np.ones((1, 200)), 100).initial(2).second, 100**-0.5),
        (probes[:, *np.triu_indices(50, 1)], 0.5**0.5),
    ):
        assert sample.size >= 12_250
        assert np.std(sample) == pytest.approx(scale, rel=0.05)
    # tr V Vᵀ is a chi-squared of 144 degrees of freedom over 12: 12 ± √2
    trace = np.trace(measured_matrix(MatrixSensing.random(1, dimension=12, rank=12, probes=78)))
    assert trace == pytest.approx(12, abs=7 * np.sqrt(2))
    assert np.std(MatrixSensing.random(0, dimension=120).initial(1)) == pytest.approx(
        120**-0.5, rel=0.05
    )


def test_starts_follow_the_seed_and_the_precision(precision):
    for problem, shapes in (
        (TeacherStudent.random(), [(5, 100), (100,)]),
        (DeepClassifier(A, Y, 2), [(3, 2), (2,)]),
        (LinearAutoencoder(A, 2), [(2, 3), (3, 2)]),
        (MatrixSensing.random(), [(5, 5)]),
    ):
        start, again, other = (jax.tree.leaves(problem.initial(seed)) for seed in (0, 0, 1))
        assert [leaf.shape for leaf in start] == shapes
        assert all(isinstance(leaf, np.ndarray) and leaf.dtype == precision for leaf in start)
        assert all(map(np.array_equal, start, again))
        assert not any(map(np.array_equal, start, other))


def test_the_classifier_shares_the_data_of_the_regression(x64):
    problem = breast_cancer_classifier()
    assert (problem.count, problem.width, problem.activation) == (569, 20, "linear")
    np.testing.assert_array_equal(problem.features, breast_cancer().features[:, :30])
    np.testing.assert_array_equal(problem.labels, breast_cancer().labels)
    nothing = Layers(np.zeros((30, 20)), np.zeros(20))
    assert float(problem.loss(nothing)) == pytest.approx(np.log(2), rel=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepClassifier(A, Y[:3], 2), "features must be"),
        (lambda: DeepClassifier(A, 2 * Y - 1, 2), "zeros and ones"),
        (lambda: DeepClassifier(A, Y, 0), "width must be a whole number"),
        (lambda: DeepClassifier(A, Y, 2, "relu"), "unknown activation 'relu'"),
        (lambda: DeepClassifier(A, Y, 2, "linear", -1.0), "regularization must be at least 0"),
        (lambda: DeepClassifier(A, Y, 2).loss(CODE), r"shapes \(3, 2\) and \(2,\)"),
        (lambda: DeepClassifier(A, Y, 2).loss(A), r"Layers\(first, second\).*got ndarray"),
        (lambda: DeepClassifier(A, Y, 2).initial(-1), "seed must be a whole number"),
        (lambda: TeacherStudent(A[0], CODE), "features must be"),
        (lambda: TeacherStudent(A, CODE), r"must be jaxsde.problems.Layers"),
        (lambda: TeacherStudent(A, A), r"must be jaxsde.problems.Layers"),
        (lambda: TeacherStudent(A, Layers(np.ones((3, 2)), [1, np.inf])), "second must be finite"),
        (lambda: TeacherStudent(A, Layers(np.ones((3, 1)), [1.0]), np.nan), "offset must be fin"),
        (lambda: TeacherStudent.random(rows=0), "rows must be a whole number"),
        (lambda: TeacherStudent.random(offset=-1.0), "offset must be finite and not neg"),
        (lambda: TeacherStudent.random(activation="relu"), "unknown activation"),
        (lambda: TeacherStudent.random().loss(CODE), r"shapes \(5, 100\) and \(100,\)"),
        (lambda: LinearAutoencoder(A[0], 2), r"data must be \(n, d\)"),
        (lambda: LinearAutoencoder(A, 4), "width must be at most d = 3"),
        (lambda: LinearAutoencoder(A * np.nan, 2), "data must be finite"),
        (lambda: LinearAutoencoder(A, 2).gradient(A), "got ndarray"),
        (lambda: MatrixSensing(PROBES, Y[:3]), r"probes must be \(m, d, d\)"),
        (lambda: MatrixSensing(G, Y), "probes must be symmetric"),
        (lambda: MatrixSensing(PROBES, Y / 0), "targets must be finite"),
        (lambda: MatrixSensing(PROBES, Y).loss(U[0]), "one array of the problem's shape"),
        (lambda: MatrixSensing.random(rank=6), "rank must be at most dimension = 5"),
        (lambda: MatrixSensing.random(probes=0), "probes must be a whole number"),
    ],
)
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered in divide")
def test_bad_networks_and_points_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
