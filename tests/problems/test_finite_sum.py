import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsde import InputError
from jaxsde.problems import (
    BilinearGame,
    DeepClassifier,
    DoubleWell,
    FiniteSum,
    Forsaken,
    Game,
    Layers,
    LogisticRegression,
    Players,
    Quadratic,
    QuadraticGame,
    TeacherStudent,
    finite_sum,
    mean,
)

A = np.array([[1.0, 2.0], [0.0, -1.0], [-2.0, 1.0], [0.5, 0.5]])
Y = np.array([1.0, 0.0, 0.0, 1.0])
WEIGHTS = Layers(np.array([[0.3, -0.7, 0.2], [1.1, 0.4, -0.6]]), np.array([0.5, -0.8, 0.9]))
STUDENT = Layers(np.array([[1.3, 0.7, -0.2], [-0.1, 0.5, 0.6]]), np.array([-0.5, 0.3, 1.9]))
X2, HESSIANS = np.array([0.7, -1.3]), np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25], [4.0, 1.0]])
Z = Players(np.array([0.7, -0.9]), np.array([0.6, -0.3]))


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def term(name, j):
    """fⱼ of the case, written out in NumPy."""
    if name == "logistic":
        return np.log1p(np.exp(-(2 * Y[j] - 1) * A[j] @ X2)) + 0.3 / 2 * np.sum(X2**2)
    penalty = 0.3 * sum(np.sum(layer**2) for layer in WEIGHTS)
    if name == "teacher and student":
        label = sigmoid(A[j] @ STUDENT.first) @ STUDENT.second + 0.7
        return (sigmoid(A[j] @ WEIGHTS.first) @ WEIGHTS.second - label) ** 2 + penalty
    z = A[j] @ WEIGHTS.first @ WEIGHTS.second
    if name == "deep sigmoid":
        z = sigmoid(sigmoid(A[j] @ WEIGHTS.first) @ WEIGHTS.second)
    return np.log1p(np.exp(-(2 * Y[j] - 1) * z)) + penalty


CASES = {
    "logistic": (lambda: LogisticRegression(A, Y, 0.3), X2),
    "deep linear": (lambda: DeepClassifier(A, Y, 3, "linear", 0.3), WEIGHTS),
    "deep sigmoid": (lambda: DeepClassifier(A, Y, 3, "sigmoid", 0.3), WEIGHTS),
    "teacher and student": (lambda: TeacherStudent(A, STUDENT, 0.7, "sigmoid", 0.3), WEIGHTS),
}


@jax.jit
def value_and_gradient(problem, rows, x):
    """Of the part, and by autodiff of every term alone."""
    part = problem.part(rows)
    alone = jax.vmap(lambda j: jax.grad(problem.part(j[None]).loss)(x))(rows)
    return (
        part.loss(x),
        ravel_pytree(part.gradient(x))[0],
        jax.vmap(lambda tree: ravel_pytree(tree)[0])(alone),
    )


@pytest.mark.parametrize("name", CASES)
def test_a_part_is_the_mean_of_its_terms(name, x64):
    make, x = CASES[name]
    problem = make()
    assert isinstance(problem, FiniteSum)
    assert problem.count == 4
    compiled = value_and_gradient._cache_size()
    for rows in ([2, 0, 2], [3, 1, 1]):
        loss, gradient, alone = value_and_gradient(problem, jnp.array(rows), x)
        np.testing.assert_allclose(loss, np.mean([term(name, j) for j in rows]), rtol=1e-13)
        np.testing.assert_allclose(gradient, np.mean(alone, axis=0), rtol=1e-12, atol=1e-14)
    assert value_and_gradient._cache_size() == compiled + 1


WEIGHTED = np.array([0.4, -1.3, 2.0, 0.7])


@jax.jit
def terms_and_moments(problem, x):
    """Of the terms, and by autodiff of every term alone."""
    alone = jax.vmap(lambda j: jax.grad(problem.part(j[None]).loss)(x))(jnp.arange(problem.count))
    return (
        problem.terms(x),
        ravel_pytree(problem.weighted_gradient(x, jnp.asarray(WEIGHTED)))[0],
        ravel_pytree(problem.gradient_variance(x))[0],
        jax.vmap(lambda tree: ravel_pytree(tree)[0])(alone),
    )


@pytest.mark.parametrize("name", CASES)
def test_terms_and_what_is_made_of_their_gradients(name, x64, monkeypatch):
    """Three terms at a time, of four: the last block holds two that were counted before."""
    make, x = CASES[name]
    monkeypatch.setattr(finite_sum, "AT_ONCE", 3 * ravel_pytree(x)[0].size)
    terms, weighted, variance, g = terms_and_moments(make(), x)
    np.testing.assert_allclose(terms, [term(name, j) for j in range(4)], rtol=1e-13)
    np.testing.assert_allclose(weighted, WEIGHTED @ np.array(g), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(variance, np.var(g, axis=0), rtol=1e-12, atol=1e-15)


def test_what_is_made_of_the_gradients_of_problems_and_games(x64):
    quadratics = mean([Quadratic(h, shift) for h, shift in zip(HESSIANS, range(4), strict=True)])
    d = X2[None, :] - np.arange(4)[:, None]
    np.testing.assert_allclose(quadratics.terms(X2), np.sum(HESSIANS * d**2, axis=1) / 2)
    weighted = quadratics.weighted_gradient(X2, jnp.asarray(WEIGHTED))
    np.testing.assert_allclose(weighted, WEIGHTED @ (HESSIANS * d), rtol=1e-13)
    np.testing.assert_allclose(quadratics.gradient_variance(X2), (HESSIANS * d).var(axis=0))
    game, (x, y) = mean([QuadraticGame(h, -h, 2 * h) for h in HESSIANS]), Z
    fields = np.concatenate([HESSIANS * (y - x), HESSIANS * (2 * y - x)], axis=1)
    weighted = game.weighted_gradient(Z, jnp.asarray(WEIGHTED))
    np.testing.assert_allclose(np.concatenate(weighted), WEIGHTED @ fields, rtol=1e-13)
    variance = game.gradient_variance(Z)
    np.testing.assert_allclose(np.concatenate(variance), fields.var(axis=0), rtol=1e-13)


def test_all_rows_are_the_whole():
    for make, _ in CASES.values():
        problem = make()
        whole = problem.part(np.arange(4))
        assert type(whole) is type(problem)
        assert jax.tree.structure(whole) == jax.tree.structure(problem)
        assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(problem)))


def test_the_mean_of_problems(x64):
    quadratics = [Quadratic(h, shift) for h, shift in zip(HESSIANS, range(4), strict=True)]
    problem = mean(quadratics)
    assert isinstance(problem, FiniteSum)
    assert not isinstance(problem, Game)
    assert problem.count == 4
    assert problem.part(np.array([0, 2, 2])).count == 3

    @jax.jit
    def answers(problem, rows):
        part = problem.part(rows)
        return part.loss(X2), part.gradient(X2), part.hessian_vector_product(X2, X2)

    for rows in ([0, 1, 2, 3], [1, 3, 3, 1]):
        d = np.array([X2 - j for j in rows])
        H = HESSIANS[rows]
        loss, gradient, product = answers(problem, jnp.array(rows))
        np.testing.assert_allclose(loss, np.mean(np.sum(H * d**2, axis=1)) / 2, rtol=1e-14)
        np.testing.assert_allclose(gradient, np.mean(H * d, axis=0), rtol=1e-14)
        np.testing.assert_allclose(product, H.mean(axis=0) * X2, rtol=1e-14)


def test_the_mean_of_games_is_a_game_with_the_mean_field(x64):
    game = mean([QuadraticGame(h, -h, 2 * h) for h in HESSIANS])
    assert isinstance(game, Game)
    assert isinstance(game, FiniteSum)
    rows = np.array([1, 3, 3])
    h = HESSIANS[rows].mean(axis=0)
    x, y = Z

    @jax.jit
    def answers(game):
        v = Players(x, 2 * y)
        return (
            game.payoff(Z), game.gradient(Z), game.loss(Z),
            game.hessian_vector_product(Z, v), game.transpose_product(Z, v), game.norms(Z),
        )  # fmt: skip

    payoff, field, hamiltonian, forward, transposed, norms = answers(game.part(rows))
    F = np.concatenate([h * (y - x), h * (2 * y - x)])
    assert payoff == pytest.approx(np.sum(h * (-(x**2) / 2 + x * y - y**2)), rel=1e-14)
    np.testing.assert_allclose(np.concatenate(field), F, rtol=1e-14)
    assert hamiltonian == pytest.approx(F @ F / 2, rel=1e-14)  # of the mean field
    np.testing.assert_allclose(np.concatenate(forward), np.r_[h * (2 * y - x), h * (4 * y - x)])
    np.testing.assert_allclose(np.concatenate(transposed), np.r_[-h * (2 * y + x), h * (x + 4 * y)])
    assert norms == pytest.approx(np.linalg.norm(x) + np.linalg.norm(y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mean([]), "at least one problem"),
        (lambda: mean([Quadratic([1.0]), "f"]), "at least one problem"),
        (lambda: mean([Quadratic([1.0]), DoubleWell()]), "of one class"),
        (lambda: mean([DeepClassifier(A, Y, 3), DeepClassifier(A, Y, 2)]), "of one class"),
        (lambda: mean([BilinearGame([1.0]), BilinearGame([1.0, 2.0])]), "same shapes"),
        (lambda: mean([Forsaken(), Forsaken()]), "Forsaken has no arrays"),
        (lambda: LogisticRegression(A, Y).part([0, 1]), "rows must be an array"),
        (lambda: LogisticRegression(A, Y).part(np.array(1)), "rows must be an array"),
        (lambda: LogisticRegression(A, Y).part(np.array([], int)), "rows must be an array"),
        (lambda: LogisticRegression(A, Y).part(np.array([0.0])), "rows must be an array"),
        (lambda: LogisticRegression(A, Y).part(np.array([0, 4])), r"rows must lie in 0 ... 3"),
        (lambda: mean([Quadratic([1.0])]).part(np.array([-1])), r"rows must lie in 0 ... 0"),
    ],
)
def test_bad_sums_and_rows_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
