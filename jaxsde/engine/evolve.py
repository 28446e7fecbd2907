"""Paths through time: pure functions that start an ensemble and advance it between records."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from jaxsde import _checks
from jaxsde.engine import noise, statistics
from jaxsde.engine.batching import OverPaths, Paths, Struct, shared_state
from jaxsde.engine.layout import Work, work
from jaxsde.engine.observables import Observable, observe, resolve

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


def step_work(process: Process, x0: PyTree[jax.ShapeDtypeStruct], draws: PyTree) -> Work:
    """What one step of one path takes."""
    dtype = _dtype(x0)
    state = jax.eval_shape(process.init, x0, noise.structure(draws, dtype))
    return _work(_step(process, state, draws, dtype))


def _work(step: OverPaths) -> Work:
    return work(step.jaxpr, [False] + [True] * (len(step.inputs) - 1))


def _check_step_keeps_shapes(state: PyTree, after: PyTree) -> None:
    before, after = (jax.tree_util.tree_leaves_with_path(tree) for tree in (state, after))
    for (path, old), (_, new) in zip(before, after, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise _checks.InputError(
                f"a step must keep the state's shapes and dtypes, but turns "
                f"state{jax.tree_util.keystr(path)} from {old.dtype}{list(old.shape)} into "
                f"{new.dtype}{list(new.shape)}"
            )


class Beginning(eqx.Module):
    """How paths begin, traced for one path; a call begins `size` of them."""

    init: OverPaths
    draws: PyTree[noise.Draw]
    shared: tuple[bool, ...] = eqx.field(static=True)
    x0: Struct = eqx.field(static=True)

    @classmethod
    def of(cls, process: Process, x0: PyTree | RandomStart) -> "Beginning":
        """Traces `process.init` on x0, and a step to see which parts of the state stay shared."""
        x0 = x0 if isinstance(x0, RandomStart) else RandomStart((), _Point(x0))
        x = x0.struct(jnp.result_type(float))
        draws = process.noise(x)

        def begin(draw, start_draw):
            return _strong(process.init(x0.point(start_draw), draw))

        structs = [noise.structure(draw, _dtype(x)) for draw in (draws, x0.noise)]
        init = OverPaths(begin, *structs)
        state = init.out.tree
        step = _step(process, state, draws, _dtype(x))
        if step.out.treedef != init.out.treedef:
            raise _checks.InputError(
                f"a step must keep the state's structure, but turns {init.out.treedef} into "
                f"{step.out.treedef}"
            )
        _check_step_keeps_shapes(state, step.out.tree)
        return cls(init, (draws, x0.noise), shared_state(init, step), Struct.of(x))

    def __call__(self, key: UInt32[Array, "2"], size: int, first_path: Any) -> Paths:
        """The paths at step 0."""
        index = jnp.uint32(first_path) + jnp.arange(size, dtype=jnp.uint32)
        dtype = _dtype(self.x0.tree)
        blocks = noise.blocks(self.draws, key, noise.BEFORE_FIRST_STEP, index, dtype)
        values = noise.values(self.draws, blocks, 0, dtype)
        leaves, treedef = jax.tree.flatten(self.init(size, *values, shared=self.shared))
        return Paths(leaves, treedef, self.shared, size, self.x0)


class _Point(eqx.Module):
    x0: PyTree

    def __call__(self, draw: Any) -> PyTree:
        return self.x0


def start(
    process: Process,
    x0: PyTree | RandomStart,
    key: PRNGKeyArray | UInt32[Array, "2"],
    size: int,
    first_path: int | UInt32[Array, ""] = 0,
) -> Paths:
    """The states of `size` paths at step 0, their global indices starting at `first_path`.

    Raises:
        InputError: more paths than the noise's counters hold.
    """
    _check_counters(size, first_path)
    return Beginning.of(process, x0)(noise.key_words(key), size, first_path)


class Evolution(eqx.Module):
    """How paths go on and what is read off them, traced for one path; a call advances many."""

    step: OverPaths
    watch: OverPaths
    draws: PyTree[noise.Draw]
    covariances: tuple[str, ...] = eqx.field(static=True)
    in_turn: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls, process: Process, paths: Paths, observables: Mapping[str, Observable]
    ) -> "Evolution":
        """Traces a step and the observables."""
        x0 = paths.start.tree
        draws = process.noise(x0)
        step = _step(process, paths.one, draws, _dtype(x0))
        watch = OverPaths(lambda state: observe(process, observables, state), paths.one)
        covariances = tuple(name for name, seen in observables.items() if seen.covariance)
        return cls(step, watch, draws, covariances, _work(step).in_turn)

    def __call__(
        self, paths: Paths, key: UInt32[Array, "2"], first_path, first_step, records, limit,
        kept: Bool[Array, " T"] | None = None,
    ) -> tuple[Paths, dict[str, Record]]:  # fmt: skip
        """As `evolve`; where a record is not `kept`, nothing is looked at."""
        index = jnp.uint32(first_path) + jnp.arange(paths.size, dtype=jnp.uint32)
        counted = jnp.full(index.shape, True) if limit is None else index < jnp.uint32(limit)
        dtype = _dtype(paths.start.tree)

        def blocks(j):
            return noise.blocks(self.draws, key, j, index, dtype)

        def step(k, state, block, parity):
            draw = noise.values(self.draws, block, parity, dtype)
            return self.step(paths.size, k, state, draw, shared=paths.shared)

        def look(state):
            values = self.watch(paths.size, state, in_turn=self.in_turn)
            return {name: self._record(name, v, counted) for name, v in values.items()}

        def to_record(state, interval):
            first, last, wanted = interval
            state = _advance(step, blocks, state, first, last)
            if kept is None:
                return state, look(state)
            return state, jax.lax.cond(wanted, look, lambda state: _zeros(look, state), state)

        stops = jnp.asarray(records, jnp.int32)
        starts = jnp.concatenate([jnp.asarray(first_step, jnp.int32)[None], stops[:-1]])
        state, recorded = jax.lax.scan(to_record, paths.state, (starts, stops, kept))
        return paths.replace(state), recorded

    def _record(self, name: str, value: Array, counted: Bool[Array, " paths"]) -> Record:
        moments = statistics.moments(value, counted, name in self.covariances)
        return Record(moments, value[..., :SAMPLE])


def evolve(
    process: Process,
    paths: Paths,
    key: PRNGKeyArray | UInt32[Array, "2"],
    first_path: int | UInt32[Array, ""],
    first_step: int | Int[Array, ""],
    records: Int[Array, " T"],
    observables: Mapping[str, Callable | Observable] | None = None,
    limit: int | UInt32[Array, ""] | None = None,
) -> tuple[Paths, dict[str, Record]]:
    """Advances paths to each recorded step in turn and takes the statistics there.

    Pure, so that it can be transformed: a `vmap` over the array leaves of `process` is a sweep,
    compiled once, in which all settings share their noise. Build the process inside the mapped
    function, so that all that depends on a hyperparameter follows it. Derivatives are pathwise and
    forward (`jax.jvp`), and those of expectations only where a step is smooth: not through a sign.
    On CPU, `jax.jit(..., compiler_options=CPU_OPTIONS)` gives it the speed that `simulate` has.

    Args:
        process: the chain; its array leaves may be traced.
        paths: states at `first_step`, from `start` or from here.
        key: the noise's key.
        first_path: the global index of the first of these paths.
        first_step: the step at which `paths` are.
        records: steps to record, ascending, from `first_step` on; the last is where it ends.
        observables: functions of the position by name, as in `simulate`.
        limit: only paths with a global index below it are counted; all by default.

    Returns:
        The paths at the last recorded step, and by observable the records.

    Raises:
        InputError: more paths or steps than the noise's counters hold.
    """
    _check_counters(paths.size, first_path, records)
    watched = resolve(process, observables, paths.start.tree)
    evolution = Evolution.of(process, paths, watched)
    words = noise.key_words(key)
    return evolution(paths, words, first_path, first_step, records, limit)


def _check_counters(size: int, first_path: Any, records: Any = 0) -> None:
    """Refuses, where the numbers are known, what would wrap around and repeat noise."""
    first, last = _checks.concrete(first_path), _checks.concrete(records)
    if first is not None and int(first) + size > 2**32:
        raise _checks.InputError(
            f"the noise's counters hold 2³² paths: {size} from number {int(first)} on are too many"
        )
    if last is not None and np.max(last) >= 2**31:
        raise _checks.InputError(
            f"the noise's counters hold 2³¹ - 1 steps: {np.max(last)} are too many"
        )


def _advance(step: Callable, blocks: Callable, state: PyTree, first, last) -> PyTree:
    """Steps first, ..., last - 1, in pairs that share their noise blocks."""

    def both(j, state):
        inside = [(first <= k) & (k < last) for k in (2 * j, 2 * j + 1)]
        block = _if(inside[0] | inside[1], blocks, _zeros(blocks, j), j)
        for parity in (0, 1):
            one_step = functools.partial(step, parity=parity)
            state = _if(inside[parity], one_step, state, 2 * j + parity, state, block)
        return state

    return jax.lax.fori_loop(first // 2, (last + 1) // 2, both, state)


def _zeros(fn: Callable, *args: Any) -> PyTree[Array]:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(fn, *args))


def _if(wanted, fn: Callable, otherwise: PyTree, *args: Any) -> PyTree:
    """fn(*args) if it is wanted.

    A branch on CPU, across which the compiler fuses nothing: it would compute the noise anew for
    every array that depends on it, and round a step one way here and another there. A selection
    elsewhere, where branches wait for the host.
    """

    def branch(wanted, otherwise, *args):
        return jax.lax.cond(
            wanted, lambda other, *args: fn(*args), lambda other, *args: other, otherwise, *args
        )

    def select(wanted, otherwise, *args):
        return jax.tree.map(functools.partial(jnp.where, wanted), fn(*args), otherwise)

    return jax.lax.platform_dependent(wanted, otherwise, *args, cpu=branch, default=select)
