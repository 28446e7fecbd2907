"""Games of two players, min over x and max over y of one payoff."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import Problem

Diagonal = Float[Array, " d"]
Matrix = Float[Array, "dx dy"]


class Players(NamedTuple):
    """A point z = (x, y) of a game: x descends the payoff, y climbs it. Two pytrees of arrays."""

    x: Any
    y: Any


def check_players(z: Any) -> None:
    """Refuses a point that is not two players' points."""
    if not isinstance(z, Players):
        got = "one array" if hasattr(z, "shape") else f"a {type(z).__name__}"
        raise _checks.InputError(
            f"a game needs two players: its points are jaxsde.problems.Players(x, y), got {got}"
        )


def check_shapes(z: Players, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Refuses a point whose players are not one array each, of these shapes."""
    check_players(z)
    for name, point, shape in (("x", z.x, x), ("y", z.y, y)):
        if not isinstance(point, jax.Array | np.ndarray) or point.shape != shape:
            got = getattr(point, "shape", jax.tree.structure(point))
            raise _checks.InputError(f"player {name} must be one array of shape {shape}, got {got}")


class Game(Problem):
    """min over x, max over y of f(x, y); subclass it and write `payoff`.

    A point is z = Players(x, y). Where a problem of one player has ∇f, a game has the field

        F(z) = (∂f/∂x, -∂f/∂y),

    and `gradient` returns it: it is what a descent step goes against, so that every optimizer and
    oracle works on a game as it stands (SGD is then stochastic gradient descent ascent, SGDA).
    F is in general not the gradient of a function. Its Jacobian

        J(z) = [[f_xx, f_xy], [-f_yx, -f_yy]]

    need not be symmetric; `hessian_vector_product(z, v)` is J(z) v, and `transpose_product(z, v)`
    is J(z)ᵀ v.
    """

    @abc.abstractmethod
    def payoff(self, z: Players) -> Scalar:
        """f(x, y)."""

    def gradient(self, z: Players, /) -> Players:
        """F(z) = (∂f/∂x, -∂f/∂y); this is not the gradient of `loss`."""
        check_players(z)
        slope = jax.grad(self.payoff)(z)
        return Players(slope.x, jax.tree.map(jnp.negative, slope.y))

    def loss(self, z: Players, /) -> Scalar:
        """The Hamiltonian |F(z)|²/2, which is 0 at the stationary points of the game only.

        A game minimises no function. This is what is reported as its loss; its gradient is
        J(z)ᵀ F(z), not `gradient`.
        """
        return _half_square(self.gradient(z))

    def transpose_product(self, z: Players, v: Players) -> Players:
        """J(z)ᵀ v, with the structure of z, by reverse mode over the field."""
        return jax.vjp(self.gradient, z)[1](v)[0]

    def observables(self) -> dict[str, Callable]:
        """The loss, and u = (|x|² + |y|²)/2."""
        return {"loss": self.loss, "half_square": self.half_square}

    def half_square(self, z: Players) -> Scalar:
        """u = (|x|² + |y|²)/2."""
        check_players(z)
        return _half_square(z)

    def norms(self, z: Players, /) -> Scalar:
        """|x| + |y|."""
        check_players(z)
        return optax.tree.norm(z.x) + optax.tree.norm(z.y)


class QuadraticGame(Game):
    """f(x, y) = xᵀ A x/2 + xᵀ B y - yᵀ C y/2, whose field F(z) = J z is linear.

    Convex in x and concave in y when A and C are positive; both may have any sign.

    Args:
        coupling: B, as its diagonal `(d,)` or a matrix `(dx, dy)`.
        curvature: A, a scalar times the identity, a diagonal `(dx,)` or a symmetric matrix.
        opponent_curvature: C, likewise for y; A if left out.

    Raises:
        InputError: an entry is not finite, or a shape or symmetry does not fit.
    """

    coupling: Diagonal | Matrix
    curvature: Diagonal | Matrix
    opponent_curvature: Diagonal | Matrix

    def __init__(
        self,
        coupling: ArrayLike | Sequence,
        curvature: ArrayLike | Sequence = 0.0,
        opponent_curvature: ArrayLike | Sequence | None = None,
    ):
        coupling = jnp.asarray(coupling, float)
        if coupling.ndim not in (1, 2):
            raise _checks.InputError(
                f"coupling must be (d,) or (dx, dy), got shape {coupling.shape}"
            )
        _checks.finite("coupling", coupling)
        opponent = curvature if opponent_curvature is None else opponent_curvature
        self.coupling = coupling
        self.curvature = _curvature("curvature", curvature, coupling.shape[0])
        self.opponent_curvature = _curvature("opponent_curvature", opponent, coupling.shape[-1])

    def payoff(self, z: Players) -> Scalar:
        """xᵀ A x/2 + xᵀ B y - yᵀ C y/2."""
        self._check(z)
        A, B, C = self.curvature, self.coupling, self.opponent_curvature
        x, y = z
        return jnp.sum(x * _times(A, x) / 2 + x * _times(B, y)) - jnp.sum(y * _times(C, y)) / 2

    def gradient(self, z: Players, /) -> Players:
        """F(z) = (A x + B y, C y - Bᵀ x)."""
        self._check(z)
        A, B, C = self.curvature, self.coupling, self.opponent_curvature
        x, y = z
        return Players(_times(A, x) + _times(B, y), _times(C, y) - _times(B.T, x))

    def jacobian(self) -> Float[Array, "n n"]:
        """J = [[A, B], [-Bᵀ, C]], the same at every z; n = dx + dy."""
        A, B, C = map(_dense, (self.curvature, self.coupling, self.opponent_curvature))
        return jnp.block([[A, B], [-B.T, C]])

    def _check(self, z):
        check_shapes(z, self.curvature.shape[:1], self.opponent_curvature.shape[:1])


class BilinearGame(QuadraticGame):
    """f(x, y) = xᵀ B y: J = [[0, B], [-Bᵀ, 0]] is antisymmetric and the field turns about 0.

    Args:
        coupling: B, as its diagonal `(d,)` or a matrix `(dx, dy)`.

    Raises:
        InputError: B has another shape or an entry that is not finite.
    """

    def __init__(self, coupling: ArrayLike | Sequence):
        super().__init__(coupling)


class Forsaken(Game):
    """f(x, y) = Σᵢ xᵢ (yᵢ - 0.45) + h(xᵢ) - h(yᵢ), h(s) = s²/4 - s⁴/2 + s⁶/6.

    The one stationary point, near (0.08, 0.41) in each coordinate, attracts from nearby only: a
    cycle shields it, and from beyond the field -F leads to a larger cycle that holds no stationary
    point (Hsieh, Mertikopoulos and Cevher 2021, arXiv:2006.09065).
    """

    def payoff(self, z: Players) -> Scalar:
        """Σᵢ xᵢ (yᵢ - 0.45) + h(xᵢ) - h(yᵢ)."""
        x, y = _vectors(z)

        def h(s):
            return s**2 / 4 - s**4 / 2 + s**6 / 6

        return jnp.sum(x * (y - 0.45) + h(x) - h(y))


class AlmostBilinear(Game):
    """f(x, y) = Σᵢ xᵢ yᵢ - ε h(yᵢ), h(s) = s²/2 - s⁴/4.

    The field turns about the one stationary point, 0. For small |ε| it has a cycle of radius about
    2/√3 (first-order averaging): with ε > 0 the origin attracts and the cycle repels, with ε < 0
    the origin repels and the cycle attracts.

    Args:
        epsilon: ε, of either sign.
    """

    epsilon: Float[Array, ""]

    def __init__(self, epsilon: ArrayLike = 0.01):
        if np.ndim(epsilon) != 0:
            raise _checks.InputError(f"epsilon must be one number, got shape {np.shape(epsilon)}")
        _checks.finite("epsilon", epsilon)
        self.epsilon = jnp.asarray(epsilon, float)

    def payoff(self, z: Players) -> Scalar:
        """Σᵢ xᵢ yᵢ - ε h(yᵢ)."""
        x, y = _vectors(z)
        return jnp.sum(x * y - self.epsilon * (y**2 / 2 - y**4 / 4))


class DegreeEight(Game):
    """f(x, y) = Σᵢ xᵢ yᵢ + h(xᵢ) - h(yᵢ), h(s) = s²/2 - s⁴/4 + s⁶/6 - s⁸/8.

    The one stationary point, 0, attracts; far from it h falls and the players run away.
    """

    def payoff(self, z: Players) -> Scalar:
        """Σᵢ xᵢ yᵢ + h(xᵢ) - h(yᵢ)."""
        x, y = _vectors(z)

        def h(s):
            return s**2 / 2 - s**4 / 4 + s**6 / 6 - s**8 / 8

        return jnp.sum(x * y + h(x) - h(y))


def _vectors(z: Players) -> Players:
    """The point, when its players are two vectors of one length."""
    check_players(z)
    x, y = (getattr(point, "shape", None) for point in z)
    if x is None or x != y or len(x) != 1:
        raise _checks.InputError(
            f"the players must be two arrays of one shape (d,), got {x} and {y}"
        )
    return z


def _curvature(name: str, value: ArrayLike | Sequence, d: int) -> Diagonal | Matrix:
    """A scalar or `(d,)` as a diagonal, a symmetric `(d, d)` as it is."""
    curvature = jnp.asarray(value, float)
    if curvature.shape not in ((), (d,), (d, d)):
        raise _checks.InputError(
            f"{name} must be a scalar, ({d},) or ({d}, {d}), got shape {curvature.shape}"
        )
    _checks.finite(name, curvature)
    known = _checks.concrete(curvature)
    if known is not None and known.ndim == 2 and not np.allclose(known, known.T, rtol=1e-5):
        raise _checks.InputError(f"{name} must be symmetric")
    return curvature if curvature.ndim == 2 else jnp.broadcast_to(curvature, (d,))


def _times(matrix: Diagonal | Matrix, v: Diagonal) -> Diagonal:
    return matrix * v if matrix.ndim == 1 else matrix @ v


def _dense(matrix: Diagonal | Matrix) -> Matrix:
    return jnp.diag(matrix) if matrix.ndim == 1 else matrix


def _half_square(z: Players) -> Scalar:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda leaf: jnp.sum(leaf**2), z)) / 2
