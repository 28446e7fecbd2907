"""Order-2 SDEs from an update rule: the generic engine, and what its fast paths share."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.sdes._sde import SDE, check_order

REGIMES = ("ballistic", "batch-equivalent")


def _itself(point: Any) -> Any:
    return point


def modified_equation(
    update: Callable[[Any, Any, Any, Any], Any],
    learning_rate: Any,
    *,
    regime: str,
    order: int = 2,
    noise: PyTree = None,
    initial: Callable[[Any], Any] = _itself,
    position: Callable[[Any], Any] = _itself,
    t0: Any = 0.0,
) -> "ModifiedEquation":
    """The SDE of order 1 or 2 of y⁺ = update(t, y, z, η), z standard normal.

    The step is expanded in η about 0 and averaged over z, the SDE matches its first two moments
    (Li, Tai and E 2019). What the update holds fixed while η varies, the regime decides:

    - "ballistic": the noise of a gradient stays, the clock is t = k η and averages have
      1 - β = ρ η. With y⁺ = y + η a₁ + η² a₂ + .., b = E a₁, C = Cov a₁, b₁ = E a₂ - (∂ₜ b +
      (b·∇) b)/2,

          dY = b dt + √η C^{1/2} dW,    of order 2    dY = (b + η b₁) dt + √η C^{1/2} dW.

    - "batch-equivalent": the noise grows as 1/η, the clock is t = k η², averages have
      1 - β = c η². With τ = η², y⁺ = y + η A₁ + τ A₂ + η³ A₃ + τ² A₄ + .., b = E A₂, h₁ = E A₄,
      S = E A₁ A₁ᵀ, M = E (A₁ A₃ᵀ + A₂ A₂ᵀ + A₃ A₁ᵀ) and the matrix (Db)ₐ꜀ = ∂꜀ bₐ,

          dY = b dt + S^{1/2} dW,    of order 2    dY = (b + τ b₁) dt + (S + τ S₁)^{1/2} dW,
          b₁ = h₁ - (∂ₜ b + (b·∇) b + (S:∇²) b/2)/2,
          S₁ = M - b bᵀ - (∂ₜ S + (b·∇) S + Db S + S (Db)ᵀ)/2 - (S:∇²) S/4.

      It needs E A₁ = E A₃ = 0 (true where odd powers of η come with odd powers of z). Order 2 is so
      **up to the third cumulant**: where `ModifiedEquation.excess_third_cumulant` is not 0, as for
      RMSprop and Adam, no SDE is of order 2 for all observables (see `BatchEquivalentRMSprop`),
      and this one is for those whose third derivatives it does not meet.

    Example, SGD with its noise's root R(x): `update = lambda t, x, z, eta: x - eta * (gradient(x) +
    R(x) @ z)`. What must not be expanded, such as the exact bias correction 1 - β^{t/η + 1}, is
    closed over with the actual learning rate.

    The averages are cubature sums over 2 d² + 1 points for z of d coordinates, exact for
    polynomials of degree 5 in z: where aⱼ and A₂ⱼ are of degree at most 5, a₁ and A₂ of degree 2
    (squared gradients of Gaussian noise, the old or the new v), A₁ A₃ of degree 5. Other noise is
    z's image only if that is as smooth. The derivatives are exact (forward mode); cost and
    compilation suit states of a few coordinates, and check the hand-written SDEs of this package.

    Args:
        update: of (t, y, z, η), smooth at η = 0, where it returns y. y is any pytree of floats; an
            `equinox.Module` may carry array hyperparameters.
        learning_rate: η.
        regime: "ballistic" or "batch-equivalent".
        order: 1 or 2.
        noise: z's structure, a pytree of arrays or shapes; the position's unless given.
        initial: maps x0 to the state.
        position: maps the state to x.
        t0: the initial time.

    Raises:
        InputError: η not positive, or another regime or order.
    """
    _checks.positive_number("learning_rate", learning_rate)
    _checks.known("regime", regime, REGIMES)
    check_order(order)
    return ModifiedEquation(
        update=update,
        learning_rate=jnp.asarray(learning_rate, float),
        noise=noise,
        _initial=initial,
        _position=position,
        t0=t0,
        regime=regime,
        order=order,
    )


class ModifiedEquation(SDE):
    """The SDE of an update rule; `modified_equation` makes one."""

    update: Callable[[Any, Any, Any, Any], Any]
    learning_rate: Float[Array, ""]
    noise: PyTree
    _initial: Callable[[Any], Any]
    _position: Callable[[Any], Any]
    t0: Any
    regime: str = eqx.field(static=True)
    order: int = eqx.field(static=True)

    @property
    def tau(self) -> Scalar:
        """τ, the time that a step takes: η, or η² in the batch-equivalent regime."""
        return self.learning_rate if self.regime == "ballistic" else self.learning_rate**2

    def initial(self, x0: Any) -> Any:
        """The given map of x0."""
        return self._initial(x0)

    def position(self, y: Any) -> Any:
        """The given map of the state."""
        return self._position(y)

    def drift(self, t: Any, y: Any, args: Any) -> Any:
        """b, and at order 2 b + τ b₁."""
        step = _Step(self, t, y)
        if self.order == 1:
            return step.unravel(step.drift(step.t, step.y))
        weights, (A1, _, _, A4) = step.expansion(step.t, step.y, 4)
        curvature = None
        if self.regime == "batch-equivalent":
            curvature = _curvature(lambda y: step.drift(step.t, y), step.y, weights, A1) / 2
        h1 = weights @ A4
        return step.unravel(modified_drift(step.drift, h1, step.t, step.y, self.tau, curvature))

    def covariance(self, t: Any, y: Any) -> Float[Array, "n n"]:
        """(S + τ S₁) of the raveled state, (S) at order 1; τ C in the ballistic regime."""
        step = _Step(self, t, y)
        if self.regime == "batch-equivalent" and self.order == 1:
            return step.covariance(step.t, step.y)
        weights, (A1, A2, A3) = step.expansion(step.t, step.y, 3)
        b, S = weights @ A2, _mean_product(weights, A1, A1)
        M = _mean_product(weights, A2, A2) + 2 * _symmetric(_mean_product(weights, A1, A3))
        S1 = M - jnp.outer(b, b)
        if self.regime == "batch-equivalent":
            forward = (jnp.ones_like(step.t), b)
            transported = jax.jvp(step.covariance, (step.t, step.y), forward)[1]
            Db = jax.jacfwd(step.drift, argnums=1)(step.t, step.y)
            curved = _curvature(lambda y: step.covariance(step.t, y), step.y, weights, A1)
            S1 -= transported / 2 + _symmetric(Db @ S) + curved / 4
        return S + self.tau * S1

    def diffusion(self, t: Any, y: Any, args: Any) -> lx.FunctionLinearOperator:
        """A root of `covariance`, its negative eigenvalues taken for 0 (`clipped` tells which).

        The Brownian motion has y's structure. Where z has as many coordinates, the root is the one
        nearest to E[(y⁺ - y) zᵀ], so that the same z moves both the same way.
        """
        values, vectors = jnp.linalg.eigh(self.covariance(t, y))
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :]
        step = _Step(self, t, y)
        root = _nearest_root(root, step.response(step.t, step.y))

        def apply(dW):
            return step.unravel(root @ jax.flatten_util.ravel_pytree(dW)[0])

        return lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: y))

    def clipped(self, t: Any, y: Any) -> Scalar:
        """Σ |λ| over the eigenvalues λ < 0 of `covariance`, as a share of Σ |λ| over all."""
        values = jnp.linalg.eigvalsh(self.covariance(t, y))
        total = jnp.sum(jnp.abs(values))
        return jnp.sum(jnp.maximum(-values, 0)) / jnp.where(total > 0, total, 1)

    def excess_third_cumulant(self, t: Any, y: Any) -> Float[Array, "n n n"]:
        """κ, with τ² κ the third cumulant of one step less that of the SDE over its time τ.

        κ = 3 Sym(E A₁ A₁ (A₂ - b)) - (3/2) Sym(S ∇S) of the raveled state. Where it is not 0, the
        generator lacks (τ/6) κ:∇³, which no diffusion has. In the ballistic regime it is 0: there
        third cumulants of a step are of order τ³.
        """
        step = _Step(self, t, y)
        weights, (A1, A2) = step.expansion(step.t, step.y, 2)
        centred = A2 - (weights @ A2)[None, :]
        chain = 3 * jnp.einsum("q,qi,qj,qk->ijk", weights, A1, A1, centred)
        S, dS = _mean_product(weights, A1, A1), jax.jacfwd(step.covariance, argnums=1)
        sde = 3 / 2 * jnp.einsum("cd,abc->abd", S, dS(step.t, step.y))
        return _symmetric(chain - sde)


class _Step:
    """One step of an update on raveled arrays: y⁺ = y + Σⱼ Aⱼ τ^{j/2}, averaged over z."""

    def __init__(self, equation: ModifiedEquation, t: Any, y: PyTree):
        self.y, self.unravel = jax.flatten_util.ravel_pytree(y)
        self.t = jnp.asarray(t, self.y.dtype)
        self.equation = equation
        like = equation.position(y) if equation.noise is None else equation.noise
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, self.y.dtype), like)
        flat, self.unravel_noise = jax.flatten_util.ravel_pytree(zeros)
        nodes, weights = _cubature(flat.size)
        self.nodes, self.weights = (jnp.asarray(a, self.y.dtype) for a in (nodes, weights))

    def expansion(self, t: Array, y: Array, terms: int) -> tuple[Array, list[Array]]:
        """The cubature's weights `(q,)`, and A₁, A₂, .. at its nodes, `(q, n)` each."""
        ballistic = self.equation.regime == "ballistic"

        def at(node):
            def after(eta):
                z = self.unravel_noise(node)
                result = self.equation.update(t, self.unravel(y), z, eta)
                return jax.flatten_util.ravel_pytree(result)[0]

            return _taylor(after, jnp.zeros_like(t), terms // 2 if ballistic else terms)

        A = jax.vmap(at)(self.nodes)
        if ballistic:
            zero = jnp.zeros((len(self.nodes), y.size), y.dtype)
            A = [part for a in A for part in (zero, a)] + [zero] * (terms % 2)
        return self.weights, A

    def drift(self, t: Array, y: Array) -> Float[Array, " n"]:
        """b = E A₂."""
        weights, (_, A2) = self.expansion(t, y, 2)
        return weights @ A2

    def covariance(self, t: Array, y: Array) -> Float[Array, "n n"]:
        """S = E A₁ A₁ᵀ."""
        weights, A = self.expansion(t, y, 1)
        return _mean_product(weights, A[0], A[0])

    def response(self, t: Array, y: Array) -> Float[Array, "n d"]:
        """E A zᵀ for the first A that z enters."""
        weights, (A1, A2) = self.expansion(t, y, 2)
        A = A2 if self.equation.regime == "ballistic" else A1
        return _mean_product(weights, A, self.nodes)


def _cubature(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `(2 d² + 1, d)` and weights of the standard normal, exact to degree 5.

    0, ±√3 on every axis and (±√3, ±√3) in every plane: the sparse combination of the three-point
    Gauss-Hermite rule (McNamee and Stenger 1967). Weights are negative for d > 4.
    """
    axes = [sign * unit for unit in np.eye(d) for sign in (1, -1)]
    planes = [a + b for a, b in itertools.combinations(axes, 2) if np.any(a + b)]
    centre = (18 - 7 * d + d**2) / 18
    weights = [centre] + [(4 - d) / 18] * len(axes) + [1 / 36] * len(planes)
    return np.sqrt(3) * np.stack([np.zeros(d), *axes, *planes]), np.array(weights)


def _taylor(f: Callable[[Array], Array], at: Array, terms: int) -> list[Array]:
    """f⁽ʲ⁾(at)/j! for j = 1, .., terms."""
    derivatives = lambda s: (f(s),)  # noqa: E731
    for _ in range(terms):
        derivatives = _with_one_more(derivatives)
    return [d / math.factorial(j) for j, d in enumerate(derivatives(at))][1:]


def _with_one_more(derivatives: Callable) -> Callable:
    """The derivatives, and that of the last."""

    def more(s):
        values, slopes = jax.jvp(derivatives, (s,), (jnp.ones_like(s),))
        return (*values, slopes[-1])

    return more


def _curvature(f: Callable, y: Array, weights: Array, A1: Array) -> Array:
    """(S:∇²) f = E ∇²f[A₁, A₁]."""

    def along(direction):
        slope = lambda y: jax.jvp(f, (y,), (direction,))[1]  # noqa: E731
        return jax.jvp(slope, (y,), (direction,))[1]

    return jnp.tensordot(weights, jax.vmap(along)(A1), axes=1)


def _mean_product(weights: Array, a: Array, b: Array) -> Array:
    """E a bᵀ."""
    return jnp.einsum("q,qi,qj->ij", weights, a, b)


def _symmetric(a: Array) -> Array:
    """The mean over all orders of the axes."""
    orders = list(itertools.permutations(range(a.ndim)))
    return sum((jnp.transpose(a, order) for order in orders), jnp.zeros_like(a)) / len(orders)


def _nearest_root(root: Array, response: Array) -> Array:
    """The rotation root O nearest to a response of the same shape; root where that differs."""
    if root.shape != response.shape:
        return root
    left, _, right = jnp.linalg.svd(root.T @ response)
    return root @ (left @ right)


def modified_drift(
    b: Callable[[Any, PyTree], PyTree],
    h1: PyTree,
    t: Any,
    y: PyTree,
    tau: Any,
    curvature: PyTree | None = None,
) -> PyTree:
    """b + τ b₁ with b₁ = h₁ - (∂ₜ b + (b·∇) b + (S:∇²) b/2)/2, by one forward derivative of b.

    Args:
        b: the drift at leading order, of (t, y).
        h1: h₁ at (t, y), from the mean step τ b + τ² h₁.
        t: the time.
        y: the state.
        tau: τ, the time a step takes.
        curvature: (S:∇²) b/2 where the noise is O(1) in this clock; left out where S = 0.
    """
    t = jnp.asarray(t, jnp.result_type(*jax.tree.leaves(y)))
    leading = b(t, y)
    along = jax.jvp(b, (t, y), (jnp.ones_like(t), leading))[1]
    if curvature is not None:
        along = jax.tree.map(jnp.add, along, curvature)
    return jax.tree.map(lambda b, h, a: b + tau * (h - a / 2), leading, h1, along)
