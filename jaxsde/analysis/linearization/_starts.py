"""How a chain or an SDE becomes a system, and why one does not."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.analysis.linearization import _cases
from jaxsde.analysis.linearization._jumps import LINES, jumps, line_ends
from jaxsde.analysis.linearization._systems import (
    Chain,
    EulerChain,
    Flow,
    SignChain,
    System,
    Told,
    doubled,
    flat,
    with_signs,
)
from jaxsde.engine import Draw, EulerMaruyama, Process, SimplifiedWeakEuler
from jaxsde.engine.noise import is_draw
from jaxsde.processes import OptimizerProcess, SDEProcess
from jaxsde.sdes import SDE

LATE = 10**9  # the step, or the time of an SDE, at which bias corrections are over
EULER = (EulerMaruyama, SimplifiedWeakEuler)
REFUSED = (
    "{what} jumps: it has {names} of what depends on {of}, so that derivatives of single steps are "
    "not those of their mean"
)


class Start(NamedTuple):
    """A system, where it starts, and the system with other cases to compare, if it has any."""

    system: System
    s: Float[Array, " n"]
    other: System | None = None


def start(chain: Any, x0: PyTree) -> Start:
    """The chain or SDE as a system; float64 must be on.

    Raises:
        InputError: neither a process nor an SDE, a step that jumps without a mean map, draws that
            cannot be averaged over, or whole numbers in a state that are no counters.
    """
    chain, x0 = doubled(chain), jax.tree.map(lambda leaf: jnp.asarray(leaf, float), x0)
    if isinstance(chain, SDE):
        return _flow(Flow, chain, chain.initial(x0))
    if isinstance(chain, SDEProcess) and isinstance(chain.scheme, EULER):
        own = SDEProcess(chain.sde, chain.dt, chain.scheme)  # at rest no diag Σ grows old
        return _flow(EulerChain, own, chain.sde.initial(x0))
    if not isinstance(chain, Process):
        raise _checks.InputError(
            f"{type(chain).__name__} is neither an SDE nor a process, which needs init, step, "
            "position, noise, dt, t0"
        )
    plain, s = _chain(chain, x0)
    declared = chain.noise(x0)
    tells = hasattr(chain, "mean_step")
    if tells and hasattr(chain, "step_covariance"):
        return Start(_as(Told, plain), s)
    names = _jumps_of_step(plain, declared, s)
    if names:
        return Start(_sign_chain(plain, x0, s, names), s)
    found = _cases.groups(_cases.touched(_StepFrom(plain, s), declared))
    fine, coarse = (
        _as(Told if tells else Chain, plain, cases=_cases.quadrature(declared, found, coarse))
        for coarse in (False, True)
    )
    return Start(fine, s, coarse)


def _flow(kind: type[Flow], chain: Any, y: PyTree) -> Start:
    y = jax.tree.map(jnp.asarray, y)
    flow, s = kind(chain, y, jnp.asarray(float(LATE))), flat(y)
    names = jumps(
        _CoefficientsOf(flow), *((line_ends(s, seed, flow.position), ()) for seed in (3, 4))
    )
    if names:
        raise _checks.InputError(
            REFUSED.format(what="the SDE", names=", ".join(names), of="its state")
        )
    return Start(flow, s)


def _chain(process: Process, x0: PyTree) -> tuple[Chain, Float[Array, " n"]]:
    """The process without cases, and the numbers of its state after one of its steps."""
    draw = jax.tree.map(lambda leaf: leaf[0], _cases.sample(process.noise(x0), 1, seed=0))
    before, after = _first_states(process, x0, draw)
    template, rest = eqx.partition(before, eqx.is_inexact_array)
    moved = eqx.filter(after, eqx.is_inexact_array, inverse=True)
    counts = tuple(map(_counts, jax.tree.leaves(rest), jax.tree.leaves(moved)))
    return Chain(process, template, jnp.int32(LATE), rest, None, counts), flat(after)


@_cases.run_once
def _first_states(process: Process, x0: PyTree, draw: PyTree) -> tuple[PyTree, PyTree]:
    """The state at step 0, and after a late one."""
    before = process.init(x0, draw)
    after = process.step(jnp.int32(LATE), before, draw)
    return jax.tree.map(jnp.asarray, before), jax.tree.map(jnp.asarray, after)


def _counts(before: Array, after: Array) -> bool:
    """Whether this part of the state counts steps; if not, it must stay as it is."""
    if np.array_equal(before, after):
        return False
    if jnp.issubdtype(before.dtype, jnp.integer) and np.array_equal(before + 1, after):
        return True
    raise _checks.InputError(
        f"the state holds {before.dtype} that neither stays as it is nor counts steps: only "
        "floating numbers can be linearised"
    )


def _as(kind: type, chain: Chain, /, **fields: Any) -> Any:
    """The chain as another kind of it."""
    own = {field.name: getattr(chain, field.name) for field in dataclasses.fields(chain)}
    return kind(**own | fields)


def _jumps_of_step(chain: Chain, declared: PyTree[Draw], s: Float[Array, " n"]) -> tuple[str, ...]:
    draws = [_cases.sample(declared, LINES, seed) for seed in (1, 2)]
    ends = [line_ends(s, seed, chain.position) for seed in (3, 4)]
    begin, end = zip(ends, draws, strict=True)
    return jumps(_StepOf(chain), (begin, ()), (end, ()))


class _StepFrom(eqx.Module):
    """The step from s by a draw."""

    chain: Chain
    s: Float[Array, " n"]

    def __call__(self, draw: PyTree) -> Float[Array, " n"]:
        return self.chain.step(self.s, draw)


class _StepOf(eqx.Module):
    """The step from (s, draw)."""

    chain: Chain

    def __call__(self, moving: tuple, other: tuple[()]) -> PyTree:
        return self.chain.step(*moving)


class _CoefficientsOf(eqx.Module):
    """The drift and the noise at s."""

    flow: Flow

    def __call__(self, s: Array, other: tuple[()]) -> tuple[Array, Array]:
        return self.flow.field(s), self.flow.noise(s)


def _sign_chain(
    chain: Chain, x0: PyTree, s: Float[Array, " n"], names: tuple[str, ...]
) -> SignChain:
    process = chain.chain
    if isinstance(process, OptimizerProcess) and not process.asks_elsewhere:
        signed = _as(Chain, chain, chain=with_signs(process))
        declared = signed.chain.noise(x0)
        if _knows_signs_alone(signed, declared, s):
            found = _cases.groups(_cases.touched(_StepFrom(signed, s), declared))
            cases = _cases.quadrature(declared, found)
            return _as(SignChain, signed, cases=cases, members=jnp.asarray(found.members))
    reason = REFUSED.format(what="a step", names=", ".join(names), of="its state or draws")
    raise _checks.InputError(
        f"{reason}, and it has no mean map: give the process a mean_step(k, state) and a "
        "step_covariance(k, state), or linearise its SDE"
    )


def _knows_signs_alone(chain: Chain, declared: PyTree[Draw], s: Float[Array, " n"]) -> bool:
    """Whether the step stays the same where each number of a gradient keeps its sign alone."""
    rng = np.random.default_rng(4)
    g = jax.tree.map(lambda d: rng.normal(size=(3, *d.shape)), declared, is_leaf=is_draw)
    longer = jax.tree.map(lambda g: g * rng.exponential(size=g.shape), g)
    step = _StepFrom(chain, s)
    return np.array_equal(_cases.at_each(step, g), _cases.at_each(step, longer))
