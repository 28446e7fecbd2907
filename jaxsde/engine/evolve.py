"""Paths through time: pure functions that start an ensemble and advance it between records."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from jaxsde import _checks
from jaxsde.engine import noise, statistics
from jaxsde.engine.batching import OverPaths, Paths, Struct, shared_state
from jaxsde.engine.observables import Observable, observe

SAMPLE = 4096  # the paths whose values are kept at recorded times


@runtime_checkable
class Process(Protocol):
    """A Markov chain on one path; any pytree with these methods runs in the engine.

    `init(x0, draw) -> state`, `step(k, state, draw) -> state`, `position(state) -> x` and
    `noise(x0) -> PyTree[Draw]`, what each step consumes; time is `t0 + k dt`. It may offer
    `observables() -> dict` of functions of the position.
    """

    dt: Any
    t0: Any

    def init(self, x0: Any, draw: Any) -> Any:
        """The state at step 0; `draw` has the structure of a step's."""
        ...

    def step(self, k: Any, state: Any, draw: Any) -> Any:
        """The state after step k, which leads from time t0 + k dt to t0 + (k + 1) dt."""
        ...

    def position(self, state: Any) -> Any:
        """x."""
        ...

    def noise(self, x0: Any) -> PyTree[noise.Draw]:
        """What one step consumes, from the shapes in x0."""
        ...


class RandomStart(eqx.Module):
    """A start that differs between paths: `point(draw)` of a draw of its own.

    Args:
        noise: a pytree of `Draw`s.
        point: maps one path's draw to x0.
    """

    noise: PyTree[noise.Draw]
    point: Callable[[Any], Any]

    def struct(self, dtype) -> PyTree[jax.ShapeDtypeStruct]:
        """The shapes of one path's x0."""
        return jax.eval_shape(self.point, noise.structure(self.noise, dtype))


class Record(NamedTuple):
    """What is kept at T recorded times: the moments, and the first paths' values `(T, ..., s)`."""

    moments: statistics.Moments
    sample: Float[Array, "..."]


def _strong(tree: PyTree) -> PyTree[Array]:
    """Arrays without weak types, which a loop cannot carry."""
    arrays = jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), arrays)


def _dtype(x: PyTree) -> Any:
    return jax.tree.leaves(x)[0].dtype


def _step(process: Process, state: PyTree, draws: PyTree, dtype) -> OverPaths:
    def step(k, state, draw):
        return _strong(process.step(k, state, draw))

    k = jax.ShapeDtypeStruct((), jnp.int32)
    return OverPaths(step, k, state, noise.structure(draws, dtype))


def _check_step_keeps_shapes(step: OverPaths, state: PyTree) -> None:
    before, after = (jax.tree_util.tree_leaves_with_path(tree) for tree in (state, step.out))
    for (path, old), (_, new) in zip(before, after, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise _checks.InputError(
                f"a step must keep the state's shapes and dtypes, but turns "
                f"state{jax.tree_util.keystr(path)} from {old.dtype}{list(old.shape)} into "
                f"{new.dtype}{list(new.shape)}"
            )


def start(
    process: Process,
    x0: PyTree | RandomStart,
    key: PRNGKeyArray | UInt32[Array, "2"],
    size: int,
    first_path: int | UInt32[Array, ""] = 0,
) -> Paths:
    """The states of `size` paths at step 0, their global indices starting at `first_path`."""
    x0 = x0 if isinstance(x0, RandomStart) else RandomStart((), _Point(x0))
    x = x0.struct(jnp.result_type(float))
    dtype = _dtype(x)
    draws = process.noise(x)
    index = jnp.uint32(first_path) + jnp.arange(size, dtype=jnp.uint32)
    values = noise.pair(
        (draws, x0.noise), noise.key_words(key), noise.BEFORE_FIRST_STEP, index, dtype
    ).even

    def init(draw, start_draw):
        return _strong(process.init(x0.point(start_draw), draw))

    begin = OverPaths(init, noise.structure(draws, dtype), noise.structure(x0.noise, dtype))
    step = _step(process, begin.out, draws, dtype)
    _check_step_keeps_shapes(step, begin.out)
    shared = shared_state(begin, step)
    leaves, treedef = jax.tree.flatten(begin(size, *values, shared=shared))
    return Paths(leaves, treedef, shared, size, Struct.of(x))


class _Point(eqx.Module):
    x0: PyTree

    def __call__(self, draw: Any) -> PyTree:
        return self.x0


def evolve(
    process: Process,
    paths: Paths,
    key: PRNGKeyArray | UInt32[Array, "2"],
    first_path: int | UInt32[Array, ""],
    first_step: int | Int[Array, ""],
    records: Int[Array, " T"],
    observables: Mapping[str, Observable],
    limit: int | UInt32[Array, ""] | None = None,
    even: bool = False,
) -> tuple[Paths, dict[str, Record]]:
    """Advances paths to each recorded step in turn and takes the statistics there.

    Pure, so that it can be transformed: a `vmap` over the array leaves of `process` is a sweep,
    compiled once, in which all settings share their noise.

    Args:
        process: the chain; its array leaves may be traced.
        paths: states at `first_step`, from `start` or from here.
        key: the noise's key.
        first_path: the global index of the first of these paths.
        first_step: the step at which `paths` are.
        records: steps to record, ascending, from `first_step` on; the last is where it ends.
        observables: by name.
        limit: only paths with a global index below it are counted; all by default.
        even: a promise that `first_step` and all records are even, which halves what is compiled.

    Returns:
        The paths at the last recorded step, and by observable the records.
    """
    words = noise.key_words(key)
    index = jnp.uint32(first_path) + jnp.arange(paths.size, dtype=jnp.uint32)
    counted = jnp.full(index.shape, True) if limit is None else index < jnp.uint32(limit)
    one = paths.one
    x0 = paths.start.tree
    draws, dtype = process.noise(x0), _dtype(x0)
    step = _step(process, one, draws, dtype)
    watch = OverPaths(lambda state: observe(process, observables, state), one)

    def halves(j):
        return noise.pair(draws, words, j, index, dtype)

    def one_step(k, state, draw):
        return step(paths.size, k, state, draw, shared=paths.shared)

    def to_record(state, interval):
        state = _advance(one_step, halves, state, *interval, even)
        return state, _record(watch(paths.size, state), observables, counted)

    stops = jnp.asarray(records, jnp.int32)
    starts = jnp.concatenate([jnp.asarray(first_step, jnp.int32)[None], stops[:-1]])
    state, recorded = jax.lax.scan(to_record, paths.state, (starts, stops))
    return paths.replace(state), recorded


def _advance(
    one_step: Callable, halves: Callable, state: PyTree, first, last, even: bool
) -> PyTree:
    """Steps first, ..., last - 1: in pairs that share their noise blocks, odd ends alone."""

    def both(j, state):
        half = halves(j)
        return one_step(2 * j + 1, one_step(2 * j, state, half.even), half.odd)

    def alone(k, state):
        half = halves(k // 2)
        draw = jax.tree.map(lambda even, odd: jnp.where(k % 2 == 0, even, odd), *half)
        return one_step(k, state, draw)

    if even:
        return jax.lax.fori_loop(first // 2, last // 2, both, state)
    until = jnp.minimum(first + first % 2, last)
    state = jax.lax.fori_loop(first, until, alone, state)
    state = jax.lax.fori_loop(until // 2, last // 2, both, state)
    return jax.lax.fori_loop(jnp.maximum(until, last - last % 2), last, alone, state)


def _record(
    values: dict[str, Array], observables: Mapping[str, Observable], counted: Bool[Array, " paths"]
) -> dict[str, Record]:
    return {
        name: Record(
            statistics.moments(value, counted, observables[name].covariance), value[..., :SAMPLE]
        )
        for name, value in values.items()
    }
