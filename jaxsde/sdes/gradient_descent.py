"""The SDEs of stochastic gradient descent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxsde import _checks
from jaxsde.oracles import Oracle
from jaxsde.sdes._sde import PositionSDE, State


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
        if order not in (1, 2):
            raise _checks.InputError(f"order must be 1 or 2, got {order!r}")
        degrees = getattr(oracle, "degrees_of_freedom", None)
        known = None if degrees is None else _checks.concrete(degrees)
        if known is not None and known <= 2:
            raise _checks.InputError(
                f"the SGD SDE does not exist for Student-t noise with {known:g} degrees of "
                "freedom, whose variance is infinite: use more than 2, or compare quantiles of SGD"
            )
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
        root = self.oracle.covariance_root(y.X)
        if isinstance(root, lx.DiagonalLinearOperator):
            diagonal = jax.tree.map(lambda sigma: -jnp.sqrt(eta) * sigma, root.diagonal)
            return lx.DiagonalLinearOperator(State(diagonal))

        def apply(dW):
            return State(jax.tree.map(lambda w: -jnp.sqrt(eta) * w, root.mv(dW)))

        return lx.FunctionLinearOperator(apply, root.in_structure())
