"""Functions written for one path, run over many with the paths on the last axis.

`jax.vmap` would lose that layout: where operands differ in rank or in where their paths are (a
hyperparameter, a norm that scales a vector) its rules move the path axis to the front, and the
transposes cost several times the step. So a function is traced for one path and its operations are
applied with the paths last: elementwise ones by broadcasting, which XLA fuses for nothing; shape
changes with one more axis; what depends on no path unbatched; and `vmap` does the rest.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from jaxsde.engine.layout import work

_ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor
    ge gt igamma igamma_grad_a igammac integer_pow is_finite le lgamma log log1p log2 logistic lt
    max min mul ne neg nextafter not one_minus_square or polygamma population_count pow
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta""".split()
)
_INLINED = frozenset(("jit", "pjit", "closed_call"))
_LAPACK = frozenset(
    "cholesky eig eigh geqp3 geqrf hessenberg householder_product lu schur svd triangular_solve "
    "tridiagonal tridiagonal_solve".split()
)
SMALL = 4  # columns of a matrix whose product is better written out


class Struct(NamedTuple):
    """The shapes of a pytree, hashable."""

    treedef: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]

    @classmethod
    def of(cls, tree: PyTree) -> "Struct":
        """The shapes and dtypes of the tree's arrays."""
        leaves, treedef = jax.tree.flatten(tree)
        return cls(treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    @property
    def tree(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The pytree, with shapes for arrays."""
        return self.treedef.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])


class Paths(eqx.Module):
    """The states of many paths.

    A leaf that differs between paths has them on its last axis; one that is `shared` (a step
    counter, a schedule's state) is stored once. Which is which is found by tracing, not by rank.
    `start` holds the shapes of x0.
    """

    leaves: list[Array]
    treedef: Any = eqx.field(static=True)
    shared: tuple[bool, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    start: Struct = eqx.field(static=True)

    @property
    def state(self) -> PyTree[Array]:
        """The state's pytree, per-path leaves with the paths last."""
        return self.treedef.unflatten(self.leaves)

    @property
    def one(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The shapes of one path's state."""
        return self.treedef.unflatten(
            [
                jax.ShapeDtypeStruct(leaf.shape if shared else leaf.shape[:-1], leaf.dtype)
                for leaf, shared in zip(self.leaves, self.shared, strict=True)
            ]
        )

    def replace(self, state: PyTree[Array]) -> "Paths":
        """The same paths in another state."""
        leaves = self.treedef.flatten_up_to(state)
        return Paths(leaves, self.treedef, self.shared, self.size, self.start)


class OverPaths(eqx.Module):
    """A function of one path's arguments, vectorised over their last axes.

    Args:
        fn: the function, which may close over arrays.
        structs: the shapes of one path's arguments.
    """

    constants: list[Array]
    jaxpr: Any = eqx.field(static=True)
    inputs: tuple[tuple[tuple[int, ...], Any], ...] = eqx.field(static=True)
    out: Struct = eqx.field(static=True)

    def __init__(self, fn: Callable, *structs: PyTree[jax.ShapeDtypeStruct]):
        traced, out = jax.make_jaxpr(fn, return_shape=True)(*structs)
        self.constants = [jnp.asarray(constant) for constant in traced.consts]
        self.jaxpr = traced.jaxpr
        self.inputs = Struct.of(structs).leaves
        self.out = Struct.of(out)

    def __call__(
        self, size: int, *args: PyTree[Array], shared: tuple[bool, ...] = (), in_turn: bool = False
    ) -> PyTree:
        """The outputs for `size` paths, on the last axis of all but the `shared` leaves.

        Args:
            size: the number of paths.
            args: arrays of one path's rank (shared) or with one more axis, the paths.
            shared: which output leaves are wanted once; none by default.
            in_turn: whether paths run one after the other on CPU also where this multiplies little.
        """
        arguments = self._arguments(jax.tree.leaves(args))
        arrays, varies = [array for array, _ in arguments], [batched for _, batched in arguments]
        shared = shared or (False,) * len(self.out.leaves)

        def run(evaluate, *arrays):
            pairs = list(zip(arrays, varies, strict=True))
            outputs = evaluate(self.jaxpr, self.constants, pairs, size)
            return [
                _once(array, shape) if once else _spread(array, batched, shape, size)
                for (array, batched), (shape, _), once in zip(
                    outputs, self.out.leaves, shared, strict=True
                )
            ]

        side_by_side, one_by_one = (functools.partial(run, fn) for fn in (_evaluate, _in_turn))
        if any(varies) and (in_turn or work(self.jaxpr, varies).in_turn):
            leaves = lax.platform_dependent(*arrays, cpu=one_by_one, default=side_by_side)
        else:
            leaves = side_by_side(*arrays)
        return self.out.treedef.unflatten(leaves)

    def shared(self, *inputs_shared: bool) -> tuple[bool, ...]:
        """Which output leaves are the same for all paths, given which input leaves are."""
        size = 2
        flags: list[bool] = []

        def run(*leaves):
            outputs = _evaluate(self.jaxpr, self.constants, self._arguments(leaves), size)
            flags.extend(not batched for _, batched in outputs)

        shapes = [
            jax.ShapeDtypeStruct(shape if shared else (*shape, size), dtype)
            for (shape, dtype), shared in zip(self.inputs, inputs_shared, strict=True)
        ]
        jax.eval_shape(run, *shapes)
        return tuple(flags)

    def _arguments(self, leaves: Any) -> list:
        return [
            (leaf, jnp.ndim(leaf) > len(shape))
            for leaf, (shape, _) in zip(leaves, self.inputs, strict=True)
        ]


def _evaluate(jaxpr: Any, constants: list, arguments: list, size: int) -> list:
    """Runs a jaxpr on pairs (array, whether its last axis are the paths)."""
    known = dict(zip(jaxpr.constvars, [(constant, False) for constant in constants], strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom):
        literal = isinstance(atom, jax.extend.core.Literal)
        return (atom.val, False) if literal else known[atom]

    for equation in jaxpr.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars], size)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _in_turn(jaxpr: Any, constants: list, arguments: list, size: int) -> list:
    """Runs a jaxpr on pairs as `_evaluate`, on one path after the other."""

    def one(own):
        mine = iter(own)
        single = [(next(mine) if batched else array, False) for array, batched in arguments]
        return [jnp.asarray(array) for array, _ in _evaluate(jaxpr, constants, single, size)]

    own = [jnp.moveaxis(array, -1, 0) for array, batched in arguments if batched]
    outputs = lax.optimization_barrier(lax.map(one, lax.optimization_barrier(own)))
    return [(jnp.moveaxis(output, 0, -1), True) for output in outputs]


def _once(array: Any, shape: tuple[int, ...]) -> Array:
    """What all paths share, from one of them if it was computed for each."""
    array = jnp.asarray(array)
    return array[..., 0] if array.ndim > len(shape) else array


def _apply(equation: Any, inputs: list, size: int) -> list:
    name, params = equation.primitive.name, equation.params
    arrays, batched = [array for array, _ in inputs], [flag for _, flag in inputs]
    shape = equation.outvars[0].aval.shape if equation.outvars else ()
    if name in _INLINED:
        return _evaluate(params["jaxpr"].jaxpr, params["jaxpr"].consts, inputs, size)
    if not any(batched):
        bind = _bind_alone if name in _LAPACK else _bind
        return [(output, False) for output in bind(equation, arrays)]
    if name in _ELEMENTWISE:
        spread = [_spread(array, flag, shape, size) for array, flag in inputs]
        return [(output, True) for output in _bind(equation, spread)]
    if name == "broadcast_in_dim" and len(arrays) == 1:
        dimensions = (*params["broadcast_dimensions"], len(shape))
        return [(lax.broadcast_in_dim(arrays[0], (*shape, size), dimensions), True)]
    if name == "reshape" and params["dimensions"] is None:
        return [(lax.reshape(arrays[0], (*shape, size)), True)]
    if name == "pad" and not batched[1]:
        padding = (*params["padding_config"], (0, 0, 0))
        return [(lax.pad(arrays[0], arrays[1], padding), True)]
    if name == "concatenate":
        operands = [
            _spread(array, flag, atom.aval.shape, size)
            for (array, flag), atom in zip(inputs, equation.invars, strict=True)
        ]
        return [(lax.concatenate(operands, params["dimension"]), True)]
    if name in _LAPACK:
        outputs = lax.platform_dependent(
            *arrays,
            cpu=lambda *arrays: _one_by_one(equation, arrays, batched),
            default=lambda *arrays: [o for o, _ in _by_vmap(equation, [*arrays], batched, size)],
        )
        return [(output, True) for output in outputs]
    if name == "dot_general":
        product = _small_product(params["dimension_numbers"], inputs)
        if product is not None:
            return [(product.astype(equation.outvars[0].aval.dtype), True)]
    return _by_vmap(equation, arrays, batched, size)


def _one_by_one(equation: Any, arrays: tuple, batched: list[bool]) -> list:
    """A loop over the paths.

    jaxlib's LAPACK kernels share a batch out to the pool of threads that runs the devices, and
    wait: as soon as all devices do, for ever.
    """

    def each(own):
        mine = iter(own)
        return _bind_alone(
            equation, [next(mine) if b else a for a, b in zip(arrays, batched, strict=True)]
        )

    own = [jnp.moveaxis(a, -1, 0) for a, b in zip(arrays, batched, strict=True) if b]
    return [jnp.moveaxis(output, 0, -1) for output in lax.map(each, own)]


def _bind_alone(equation: Any, arrays: list) -> list:
    """On CPU one call at a time also where a sweep maps the step over a grid; see above."""

    @jax.custom_batching.sequential_vmap
    def alone(*arrays):
        return _bind(equation, [*arrays])

    def together(*arrays):
        return _bind(equation, [*arrays])

    return lax.platform_dependent(*arrays, cpu=alone, default=together)


def _small_product(dimensions: Any, inputs: list) -> Array | None:
    """A shared matrix with few columns times a vector of every path, as a sum of columns.

    A product is a kernel of its own between the step's others; a sum is part of them.
    """
    contracted, together = dimensions
    for side in (0, 1):
        (matrix, varies), (vector, batched) = inputs[side], inputs[1 - side]
        if varies or not batched or jnp.ndim(matrix) != 2 or jnp.ndim(vector) != 2 or together[0]:
            continue
        if not contracted[0]:
            continue
        columns = jnp.moveaxis(matrix, contracted[side][0], 0)
        if len(columns) > SMALL:
            continue
        terms = [a[:, None] * x[None, :] for a, x in zip(columns, vector, strict=True)]
        return functools.reduce(jnp.add, terms)
    return None


def _bind(equation: Any, arrays: list) -> list:
    params = equation.primitive.get_bind_params(equation.params)
    output = equation.primitive.bind(*arrays, **params)
    return list(output) if equation.primitive.multiple_results else [output]


def _spread(array: Any, batched: bool, shape: tuple[int, ...], size: int) -> Array:
    """The array broadcast to (*shape, size), from `shape` up to axes of length 1 or a scalar."""
    array = jnp.asarray(array)
    full = (*shape, size)
    if array.shape == full and batched:
        return array
    if batched and array.ndim == 1:
        return lax.broadcast_in_dim(array, full, (len(shape),))
    return lax.broadcast_in_dim(array, full, tuple(range(array.ndim)))


def _by_vmap(equation: Any, arrays: list, batched: list[bool], size: int) -> list:
    """Batches by `vmap`, which also tells which outputs (of a loop, say) depend on no path.

    Those are found by a probe, whose batching rule hears what is batched and is silent if nothing
    is.
    """
    in_axes = [-1 if flag else None for flag in batched]
    found = [False] * len(equation.outvars)

    @jax.custom_batching.custom_vmap
    def probe(outputs):
        return outputs

    @probe.def_vmap
    def rule(axis_size, in_batched, outputs):
        found[:] = in_batched[0]
        return outputs, in_batched[0]

    if len(found) == 1:
        found = [True]
    elif found:
        probed = jax.vmap(lambda arrays: probe(_bind(equation, arrays)), (in_axes,), axis_size=size)
        jax.eval_shape(probed, arrays)
    out_axes = [-1 if flag else None for flag in found]
    outputs = jax.vmap(
        lambda arrays: _bind(equation, arrays), (in_axes,), out_axes, axis_size=size
    )(arrays)
    return list(zip(outputs, found, strict=True))


def shared_state(init: OverPaths, step: OverPaths) -> tuple[bool, ...]:
    """Which leaves of a chain's state stay the same for all paths, for ever.

    The largest set that `init` starts shared and a step keeps shared, by a fixpoint over abstract
    steps. A step's arguments are its index, the state and the draw.
    """
    shared = init.shared(*[False] * len(init.inputs))
    draws = len(step.inputs) - 1 - len(shared)
    while True:
        after = step.shared(True, *shared, *[False] * draws)
        kept = tuple(before and still for before, still in zip(shared, after, strict=True))
        if kept == shared:
            return shared
        shared = kept
