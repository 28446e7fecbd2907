import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.problems import (
    DoubleWell,
    EmbeddedSaddle,
    LogisticRegression,
    Problem,
    Quadratic,
    Rosenbrock,
    breast_cancer,
)

X = np.array([0.7, -1.3, 0.4])
V = np.array([0.5, 2.0, -1.0])
H = np.array([[2.0, -0.5, 0.25], [-0.5, 1.0, 0.0], [0.25, 0.0, -0.5]])
A = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 2.0], [-2.0, 1.0, 1.0], [0.5, 0.5, -3.0]])
Y = np.array([1.0, 0.0, 0.0, 1.0])


def cross_entropy(x):
    p = 1 / (1 + np.exp(-A @ x))
    return -np.mean(Y * np.log(p) + (1 - Y) * np.log(1 - p)) + 0.3 / 2 * np.sum(x**2)


CASES = {  # a problem and its loss written out
    "diagonal quadratic": (
        lambda: Quadratic([2.0, 1.0, -0.5], [1.0, 0.0, -1.0]),
        lambda x: (2 * (x[0] - 1) ** 2 + x[1] ** 2 - 0.5 * (x[2] + 1) ** 2) / 2,
    ),
    "full quadratic": (
        lambda: Quadratic(H, 0.5),
        lambda x: sum(
            H[i, j] * (x[i] - 0.5) * (x[j] - 0.5) / 2 for i in range(3) for j in range(3)
        ),
    ),
    "Rosenbrock": (
        lambda: Rosenbrock(100.0),
        lambda x: sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(2)),
    ),
    "embedded saddle": (
        lambda: EmbeddedSaddle([-1.0, 2.0, 0.5], 1.5, 0.2),
        lambda x: sum(
            h * z**2 / 2 + 1.5 * z**4 / 4 - 0.2 * z**3 / 3
            for h, z in zip((-1.0, 2.0, 0.5), x, strict=True)
        ),
    ),
    "double well": (lambda: DoubleWell(0.75), lambda x: 0.75 * sum((z**2 - 1) ** 2 for z in x)),
    "logistic regression": (lambda: LogisticRegression(A, Y, 0.3), cross_entropy),
}


def test_norms_of_a_point_and_its_gradient(x64):
    known = np.linalg.norm(X) + np.linalg.norm(H @ (X - 0.5))
    np.testing.assert_allclose(Quadratic(H, 0.5).norms(jnp.asarray(X)), known, rtol=1e-14)


def differences(fn, x, h):
    """Fourth-order central differences along the axes."""
    rows = []
    for e in np.eye(3):
        near, far = fn(x + h * e) - fn(x - h * e), fn(x + 2 * h * e) - fn(x - 2 * h * e)
        rows.append((8 * near - far) / (12 * h))
    return np.stack(rows, axis=-1)


@jax.jit
def derivatives(problem, x, v):
    automatic = jax.grad(problem.loss)(x), jax.hessian(problem.loss)(x) @ v
    return problem.loss(x), (problem.gradient(x), problem.hessian_vector_product(x, v)), automatic


@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_curvature_agree(name, x64):
    make, loss = CASES[name]
    problem = make()
    value, (gradient, product), automatic = derivatives(problem, X, V)
    np.testing.assert_allclose(value, loss(X), rtol=1e-13)
    np.testing.assert_allclose(gradient, automatic[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gradient, differences(loss, X, 1e-3), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(product, automatic[1], rtol=1e-12, atol=1e-13)
    slopes = differences(lambda x: np.asarray(derivatives(problem, x, V)[1][0]), X, 1e-3)
    np.testing.assert_allclose(product, slopes @ V, rtol=1e-7, atol=1e-7)


def test_minima_are_where_they_should_be(x64):
    for problem, x in (
        (Quadratic([2.0, 1.0], [1.0, -3.0]), [1.0, -3.0]),
        (Rosenbrock(), [1.0, 1.0, 1.0]),
        (DoubleWell(2.0), [1.0, -1.0]),
        (EmbeddedSaddle(cubic=0.0), [1.0, 0.0]),  # x² = -h/λ
    ):
        np.testing.assert_allclose(problem.gradient(jnp.array(x)), 0, atol=1e-15)
    assert DoubleWell(2.0).loss(jnp.zeros(1)) - DoubleWell(2.0).loss(jnp.ones(1)) == 2


def test_a_subclass_needs_a_loss_alone_and_takes_any_pytree(x64):
    class Sum(Problem):
        def loss(self, x):
            return jnp.sum(x["a"] ** 3) + x["b"] * jnp.sum(x["a"])

    x, v = (
        {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)},
        {"a": jnp.ones(2), "b": jnp.array(2.0)},
    )
    gradient, product = Sum().gradient(x), Sum().hessian_vector_product(x, v)
    np.testing.assert_allclose(gradient["a"], [6, 15])
    np.testing.assert_allclose(gradient["b"], 3)
    np.testing.assert_allclose(product["a"], [6 + 2, 12 + 2])
    np.testing.assert_allclose(product["b"], 2)


def test_breast_cancer_is_standardised_and_has_a_constant(x64):
    problem = breast_cancer()
    assert problem.features.shape == (569, 31)
    np.testing.assert_allclose(problem.features[:, :30].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(problem.features[:, :30].var(0), 1, rtol=1e-12)
    np.testing.assert_array_equal(problem.features[:, 30], 1)
    assert int(problem.labels.sum()) == 357  # benign, by the data's own description
    assert problem.loss(jnp.zeros(31)) == pytest.approx(np.log(2), rel=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quadratic(1.0), r"hessian must be \(d,\) or \(d, d\)"),
        (lambda: Quadratic(np.ones((2, 3))), r"hessian must be \(d,\) or \(d, d\)"),
        (lambda: Quadratic([1.0, 2.0], np.ones(3)), "minimizer must be a scalar or have shape"),
        (lambda: Quadratic([1.0, np.nan]), "hessian must be finite"),
        (lambda: Quadratic([1.0], np.inf), "minimizer must be finite"),
        (lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]]), "hessian must be symmetric"),
        (lambda: Rosenbrock(0.0), "curvature must be positive"),
        (lambda: DoubleWell(-1.0), "barrier must be positive"),
        (lambda: EmbeddedSaddle(quartic=0.0), "quartic must be positive"),
        (lambda: EmbeddedSaddle(hessian=[np.inf]), "hessian must be finite"),
        (lambda: EmbeddedSaddle(cubic=np.nan), "cubic must be finite"),
        (lambda: LogisticRegression(A, Y[:3]), "labels"),
        (lambda: LogisticRegression(A[0], Y), "features must be"),
        (lambda: LogisticRegression(A, 2 * Y - 1), "zeros and ones"),
        (lambda: LogisticRegression(A * np.inf, Y), "features must be finite"),
        (lambda: LogisticRegression(A, Y, -0.1), "at least 0"),
        (lambda: LogisticRegression(A, Y, np.inf), "at least 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_bad_problems_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
