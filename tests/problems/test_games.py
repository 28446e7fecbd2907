import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsde import InputError
from jaxsde.problems import (
    AlmostBilinear,
    BilinearGame,
    DegreeEight,
    Forsaken,
    Game,
    Players,
    QuadraticGame,
)

A = np.array([[2.0, -0.5, 0.25], [-0.5, 1.0, 0.0], [0.25, 0.0, -1.5]])
B = np.array([[1.0, 2.0], [0.5, -1.0], [-3.0, 0.25]])
C = np.array([[0.5, 0.25], [0.25, -1.0]])
X, Y = np.array([0.7, -0.9, 0.4]), np.array([0.6, -0.3])
Y3 = np.array([0.6, -0.3, 0.8])


def quadratic(A, B, C):
    """Payoff, field and Jacobian by NumPy."""

    def answers(x, y):
        J = np.block([[A, B], [-B.T, C]])
        return x @ A @ x / 2 + x @ B @ y - y @ C @ y / 2, J @ np.concatenate([x, y]), J

    return answers


def separable(g, h, shift=0.0):
    """The same for Σ x (y - shift) + g(x) - h(y), g and h polynomials."""
    g, h = np.polynomial.Polynomial(g), np.polynomial.Polynomial(h)

    def answers(x, y):
        F = np.concatenate([y - shift + g.deriv()(x), h.deriv()(y) - x])
        J = np.block([[np.diag(g.deriv(2)(x)), np.eye(3)], [-np.eye(3), np.diag(h.deriv(2)(y))]])
        return np.sum(x * (y - shift) + g(x) - h(y)), F, J

    return answers


SEXTIC = [0, 0, 1 / 4, 0, -1 / 2, 0, 1 / 6]
OCTIC = [0, 0, 1 / 2, 0, -1 / 4, 0, 1 / 6, 0, -1 / 8]
SLOPES = [1.0, -2.0, 3.0]
CASES = {
    "full": (lambda: QuadraticGame(B, A, C), quadratic(A, B, C)),
    "mixed": (
        lambda: QuadraticGame(SLOPES, A, [0.5, 0.0, 2.0]),
        quadratic(A, np.diag(SLOPES), np.diag([0.5, 0.0, 2.0])),
    ),
    "diagonal": (
        lambda: QuadraticGame(SLOPES, [0.5, 0.0, 2.0]),
        quadratic(np.diag([0.5, 0.0, 2.0]), np.diag(SLOPES), np.diag([0.5, 0.0, 2.0])),
    ),
    "forsaken": (Forsaken, separable(SEXTIC, SEXTIC, 0.45)),
    "almost bilinear": (
        lambda: AlmostBilinear(0.3),
        separable([0], [0, 0, 0.3 / 2, 0, -0.3 / 4]),
    ),
    "degree eight": (DegreeEight, separable(OCTIC, OCTIC)),
}


@jax.jit
def answers(game, z, v):
    return [
        ravel_pytree(answer)[0]
        for answer in (
            game.payoff(z),
            game.gradient(z),
            Game.gradient(game, z),
            game.loss(z),
            game.hessian_vector_product(z, v),
            game.transpose_product(z, v),
        )
    ]


@pytest.mark.parametrize("name", CASES)
def test_field_and_its_products_follow_from_the_payoff(name, precision):
    make, reference = CASES[name]
    y = Y if name == "full" else Y3
    v = np.array([0.5, 2.0, -1.0, -1.5, 0.25, 1.0])[: 3 + len(y)]
    f, F, J = reference(X, y)
    z, direction = (Players(jnp.array(w[:3]), jnp.array(w[3:])) for w in (np.r_[X, y], v))
    rtol = 1e-5 if precision == "float32" else 1e-13
    expected = ([f], F, F, [F @ F / 2], J @ v, J.T @ v)
    for got, wanted in zip(answers(make(), z, direction), expected, strict=True):
        assert got.dtype == precision
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)))
    if isinstance(make(), QuadraticGame):
        np.testing.assert_array_equal(make().jacobian(), J)


def test_quadratic_games_keep_diagonals(x64):
    game = QuadraticGame([1.0, 2.0, -3.0], 0.5)
    for held in (game.coupling, game.curvature, game.opponent_curvature):
        assert held.shape == (3,)
        assert held.dtype == jnp.float64
    z = Players(X, Y3)
    for product in (game.hessian_vector_product, game.transpose_product):
        assert "dot_general" not in str(jax.make_jaxpr(product)(z, z))  # elementwise all the way


def test_one_curvature_is_that_of_both_players(x64):
    J = quadratic(np.eye(3) / 2, B, np.eye(2) / 2)(X, Y)[2]
    np.testing.assert_array_equal(QuadraticGame(B, 0.5).jacobian(), J)


def test_the_bilinear_field_only_turns(x64):
    for coupling, y in (([1.0, 2.0, -3.0], Y3), (B, Y)):
        game = BilinearGame(coupling)
        J = np.asarray(game.jacobian())
        np.testing.assert_array_equal(J, -J.T)
        np.testing.assert_array_equal(J[:3, 3:], np.diag(coupling) if y is Y3 else coupling)
        F = game.gradient(Players(X, y))
        assert float(F.x @ X + F.y @ y) == pytest.approx(0, abs=1e-15)


def test_the_forsaken_point_is_shielded_by_a_cycle(x64):
    """Heun's method on dz/dt = -F for 200 time units, from near the stationary point."""
    h = np.polynomial.Polynomial(SEXTIC).deriv()
    elimination = h(0.45 - h) - np.polynomial.Polynomial([0, 1])  # y = 0.45 - h'(x), x = h'(y)
    roots = elimination.roots()
    x = roots[np.abs(roots.imag) < 1e-9].real  # (1,): there is no second one
    still = Players(jnp.asarray(x), jnp.asarray(0.45 - h(x)))
    game = Forsaken()
    np.testing.assert_allclose(ravel_pytree(game.gradient(still))[0], 0, atol=1e-12)

    def step(z, _):
        slope = game.gradient(z)
        ahead = game.gradient(jax.tree.map(lambda z, f: z - 0.05 * f, z, slope))
        z = jax.tree.map(lambda z, f, g: z - 0.025 * (f + g), z, slope, ahead)
        return z, jnp.hypot(z.x - still.x, z.y - still.y)

    start = Players(still.x + jnp.array([0.05, 0.3, 1.5]), jnp.repeat(still.y, 3))
    still = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3), still)
    distance = jax.jit(lambda z: jax.lax.scan(step, z, length=4000)[1])(start)[-400:]
    assert distance[:, 0].max() < 1e-3
    assert distance[:, 1:].min() > 0.5
    np.testing.assert_allclose(distance[:, 1].max(), distance[:, 2].max(), rtol=1e-3)  # one cycle


def test_the_almost_bilinear_cycle_is_at_two_over_root_three(x64):
    angle = 2 * np.pi * np.arange(8) / 8  # exact for the quartic in sines
    circle = jnp.asarray(np.cos(angle)), jnp.asarray(np.sin(angle))

    @jax.jit
    def outward(epsilon, radius):
        x, y = (radius * axis for axis in circle)
        F = AlmostBilinear(epsilon).gradient(Players(x, y))
        return -jnp.mean(F.x * x + F.y * y)

    for epsilon in (0.1, -0.1):
        assert outward(epsilon, 2 / np.sqrt(3)) == pytest.approx(0, abs=1e-15)
        assert outward(epsilon, 1.0) * epsilon < 0 < outward(epsilon, 1.3) * epsilon


def test_the_origin_of_the_octic_game_attracts():
    zero = Players(np.zeros(3), np.zeros(3))
    assert answers(DegreeEight(), zero, zero)[3] == 0
    np.testing.assert_allclose(np.linalg.eigvals(separable(OCTIC, OCTIC)(*zero)[2]).real, 1)


def test_a_game_needs_a_payoff_alone_and_takes_pytrees(x64):
    class Product(Game):
        def payoff(self, z):
            return jnp.sum(z.x["a"] ** 2) * z.y[0] + z.x["b"] * z.y[1]

    z = Players({"a": jnp.array([1.0, 2.0]), "b": jnp.array(2.0)}, [jnp.array(6.0), jnp.array(8.0)])
    game = Product()
    field, *values = jax.jit(lambda z: (game.gradient(z), game.loss(z), game.half_square(z)))(z)
    np.testing.assert_array_equal(field.x["a"], [12.0, 24.0])
    assert [float(field.x["b"]), *map(float, field.y)] == [8.0, -5.0, -2.0]
    assert values == [(12**2 + 24**2 + 8**2 + 5**2 + 2**2) / 2, (1 + 4 + 4 + 36 + 64) / 2]
    assert game.norms(z) == 3 + 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuadraticGame(1.0), r"coupling must be \(d,\) or \(dx, dy\)"),
        (lambda: BilinearGame(np.ones((2, 2, 2))), r"coupling must be \(d,\) or \(dx, dy\)"),
        (lambda: BilinearGame([1.0, np.nan]), "coupling must be finite"),
        (lambda: QuadraticGame([1.0], np.inf), "curvature must be finite"),
        (lambda: QuadraticGame([1.0, 2.0], np.ones(3)), r"curvature must be a scalar, \(2,\)"),
        (lambda: QuadraticGame(B, A), r"opponent_curvature must be a scalar, \(2,\)"),
        (lambda: QuadraticGame(B, A, B), "opponent_curvature must be a scalar"),
        (lambda: QuadraticGame([1.0, 2.0], [[1.0, 2.0], [0.0, 1.0]]), "curvature must be symm"),
        (lambda: QuadraticGame([1.0, 2.0], 0.0, [[1.0, 2.0], [0.0, 1.0]]), "opponent_curv.*symm"),
        (lambda: AlmostBilinear(np.nan), "epsilon must be finite"),
        (lambda: AlmostBilinear([0.1]), "epsilon must be one number"),
        (lambda: BilinearGame(B).gradient(X), "a game needs two players.*got one array"),
        (lambda: BilinearGame(B).loss((X, Y)), "a game needs two players.*got a tuple"),
        (lambda: Forsaken().gradient((X, X)), "a game needs two players"),
        (lambda: Forsaken().half_square(X), "a game needs two players"),
        (lambda: Forsaken().norms((X, X)), "a game needs two players"),
        (lambda: BilinearGame(B).payoff(Players(X[:2], Y)), r"player x must be.*\(3,\)"),
        (lambda: BilinearGame(B).gradient(Players(X, X)), r"player y must be.*\(2,\)"),
        (lambda: BilinearGame(B).gradient(Players(X, [0.6, -0.3])), "player y must be one array"),
        (lambda: DegreeEight().payoff(Players(X, Y)), r"one shape \(d,\), got \(3,\) and \(2,\)"),
        (lambda: AlmostBilinear().payoff(Players(1.0, 1.0)), r"one shape \(d,\)"),
    ],
)
def test_bad_games_and_points_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
