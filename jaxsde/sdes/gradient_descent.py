"""The SDEs of stochastic gradient descent, plain and with momentum."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.oracles import Oracle
from jaxsde.sdes._sde import (
    SDE,
    PositionSDE,
    State,
    check_order,
    check_variance,
    moment,
    scaled,
)


class MomentumState(NamedTuple):
    """X, the position; V, the velocity."""

    X: PyTree
    V: PyTree


class SGD(PositionSDE):
    """The SDE of x⁺ = x - η (∇f(x) + Z), Cov Z = Σ(x), in the clock t = k η.

    Order 1:  dX = -∇f(X) dt - √η Σ(X)^{1/2} dW.
    Order 2:  dX = -(∇f(X) + (η/2) ∇²f(X) ∇f(X)) dt - √η Σ(X)^{1/2} dW.

    The weak error over a fixed time is O(η) and O(η²) (Li, Tai and E 2019, Theorem 9 and its
    second-order form). With Gaussian noise, Euler-Maruyama at dt = η of the order-1 SDE is the
    optimizer itself.

    Args:
        oracle: f and the noise.
        learning_rate: η.
        order: 1 or 2.

    Raises:
        InputError: η not positive, another order, or noise of infinite variance (Student-t with
            at most 2 degrees of freedom), for which no such SDE exists.
    """

    oracle: Oracle
    learning_rate: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(self, oracle, learning_rate, order=1):
        _checks.positive_number("learning_rate", learning_rate)
        check_order(order)
        check_variance(oracle)
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.order = order

    def drift(self, t, y: State, args) -> State:
        """-∇f, and at order 2 -(∇f + (η/2) ∇²f ∇f)."""
        eta, problem = self.learning_rate, self.oracle.problem
        gradient = problem.gradient(y.X)
        if self.order == 1:
            return State(jax.tree.map(lambda g: -g, gradient))
        Hg = problem.hessian_vector_product(y.X, gradient)
        return State(jax.tree.map(lambda g, h: -(g + eta / 2 * h), gradient, Hg))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-√η Σ^{1/2}, diagonal where Σ is."""
        eta = self.learning_rate
        return scaled(-jnp.sqrt(eta), self.oracle.covariance_root(y.X))


class HeavyBall(SDE):
    """The SDE of gradient descent with momentum, in the clock t = k √η: a step takes h = √η.

    `optax.sgd(η, momentum=β)` keeps a trace a⁺ = β a + ∇f(x) + Z, Cov Z = Σ(x), and steps
    x⁺ = x - η a⁺. With v = -h a and the friction μ = (1 - β)/h, held fixed as h → 0, that is
    v⁺ = v - h (μ v + ∇f(x) + Z), x⁺ = x + h v⁺, and

        dX = V dt,    dV = -(μ V + ∇f(X)) dt - √h Σ(X)^{1/2} dW,

    with weak error O(h). Of order 2, O(h²):

        dX = [(1 - h μ/2) V - (h/2) ∇f(X)] dt,
        dV = -[μ (1 + h μ/2) V - (h/2) ∇²f(X) V + (1 + h μ/2) ∇f(X)] dt - √h Σ(X)^{1/2} dW

    (Li, Tai and E 2019, the momentum variant of SGD). It starts at V = 0, as optax does.

    Args:
        oracle: f and the noise.
        learning_rate: η, as given to optax.
        momentum: β, in [0, 1).
        order: 1 or 2.

    Raises:
        InputError: η not positive, β not in [0, 1), another order, or noise of infinite variance.
    """

    oracle: Oracle
    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(self, oracle, learning_rate, momentum=0.9, order=1):
        _checks.positive_number("learning_rate", learning_rate)
        _checks.fraction("momentum", momentum)
        check_order(order)
        check_variance(oracle)
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.momentum = jnp.asarray(momentum, float)
        self.order = order

    @property
    def t0(self) -> float:
        """0."""
        return 0.0

    @property
    def h(self) -> Scalar:
        """√η, the time that a step takes."""
        return jnp.sqrt(self.learning_rate)

    @property
    def friction(self) -> Scalar:
        """μ = (1 - β)/√η."""
        return (1 - self.momentum) / self.h

    def initial(self, x0) -> MomentumState:
        """X = x0, V = 0."""
        return MomentumState(x0, jax.tree.map(jnp.zeros_like, x0))

    def resumed(self, x, inner) -> MomentumState:
        """X = x, V = -√η a of the optimizer's trace a."""
        return MomentumState(x, jax.tree.map(lambda a: -self.h * a, moment(inner, "trace")))

    def position(self, y: MomentumState) -> PyTree:
        """X."""
        return y.X

    def drift(self, t, y: MomentumState, args) -> MomentumState:
        """V;  -(μ V + ∇f), and at order 2 as above."""
        h, mu, problem = self.h, self.friction, self.oracle.problem
        gradient = problem.gradient(y.X)
        if self.order == 1:
            return MomentumState(y.V, jax.tree.map(lambda v, g: -(mu * v + g), y.V, gradient))
        HV, more = problem.hessian_vector_product(y.X, y.V), 1 + h * mu / 2
        sign = self._curvature_sign
        return MomentumState(
            jax.tree.map(lambda v, g: (1 - h * mu / 2) * v - h / 2 * g, y.V, gradient),
            jax.tree.map(
                lambda v, w, g: -(mu * more * v + sign * h / 2 * w + more * g), y.V, HV, gradient
            ),
        )

    @property
    def _curvature_sign(self) -> int:
        """Of (h/2) ∇²f V next to the friction."""
        return -1

    def diffusion(self, t, y: MomentumState, args) -> lx.FunctionLinearOperator:
        """[0; -√h Σ^{1/2}]."""
        root, scale = self.oracle.covariance_root(y.X), -jnp.sqrt(self.h)

        def apply(dW):
            V = jax.tree.map(lambda w: scale * w, root.mv(dW))
            return MomentumState(jax.tree.map(jnp.zeros_like, y.X), V)

        return lx.FunctionLinearOperator(apply, root.in_structure())


class Nesterov(HeavyBall):
    """The SDE of Nesterov's accelerated gradient descent, in the clock t = k √η, h = √η.

    `optax.sgd(η, momentum=β, nesterov=True)` keeps a⁺ = β a + ∇f(p) + Z and steps
    p⁺ = p - η (∇f(p) + Z + β a⁺). Its p is the point looked ahead to, p = x + β h v with v = -h a:
    x and v follow v⁺ = v - h (μ v + ∇f(x + h (1 - μ h) v) + Z), x⁺ = x + h v⁺, μ = (1 - β)/h. The
    order-1 SDE is `HeavyBall`'s. Of order 2 one sign differs:

        dX = [(1 - h μ/2) V - (h/2) ∇f(X)] dt,
        dV = -[μ (1 + h μ/2) V + (h/2) ∇²f(X) V + (1 + h μ/2) ∇f(X)] dt - √h Σ(X)^{1/2} dW

    (Li, Tai and E 2019). Its position is optax's, P = X + β h V.

    Args:
        oracle: f and the noise.
        learning_rate: η, as given to optax.
        momentum: β, in [0, 1).
        order: 1 or 2.

    Raises:
        InputError: η not positive, β not in [0, 1), another order, or noise of infinite variance.
    """

    def position(self, y: MomentumState) -> PyTree:
        """X + β h V, where the optimizer takes its gradient."""
        return jax.tree.map(lambda x, v: x + self.momentum * self.h * v, y.X, y.V)

    def resumed(self, x, inner) -> MomentumState:
        """V = -√η a of the optimizer's trace a, X = x - β h V."""
        V = super().resumed(x, inner).V
        X = jax.tree.map(lambda x, v: x - self.momentum * self.h * v, x, V)
        return MomentumState(X, V)

    @property
    def _curvature_sign(self) -> int:
        """Of (h/2) ∇²f V next to the friction."""
        return 1
