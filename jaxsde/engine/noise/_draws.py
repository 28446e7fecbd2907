"""Declared draws, and their values on many paths."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, PyTree, Shaped, UInt32

from jaxsde import _checks
from jaxsde.engine.noise._cipher import threefry
from jaxsde.engine.noise._laws import Block, Law

BEFORE_FIRST_STEP = np.uint32(2**32 - 1)
COORDINATES = 2**31 - 1  # some laws take two blocks a coordinate, and counters have 32 bits


class Draw(eqx.Module):
    """A declaration of what one step consumes: an array of `shape`, its entries i.i.d. `law`.

    Args:
        shape: of one path's draw; `Index` appends its batch.
        law: `Normal()`, `Uniform()`, `Rademacher()`, `StudentT(degrees_of_freedom)` or
            `Index(n, batch, replace)`.

    Raises:
        InputError: no tuple of whole numbers, or more coordinates than the noise's counters hold.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    law: Law

    def __check_init__(self):
        if not isinstance(self.shape, tuple):
            raise _checks.InputError(f"shape must be a tuple such as (3,), got {self.shape!r}")
        for size in self.shape:
            _checks.at_least("a size in shape", size, 0)
        shape = self.law.struct(self.shape, jnp.float32).shape
        if int(np.prod(shape, dtype=object)) > COORDINATES:
            raise _checks.InputError(
                f"a draw has at most 2³¹ - 1 coordinates, which the noise's counters hold; "
                f"got shape {shape}"
            )


def is_draw(node: Any) -> bool:
    """Whether a pytree node is a `Draw`."""
    return isinstance(node, Draw)


def structure(draws: PyTree[Draw], dtype) -> PyTree[jax.ShapeDtypeStruct]:
    """The shapes of one path's values."""
    return jax.tree.map(lambda draw: draw.law.struct(draw.shape, dtype), draws, is_leaf=is_draw)


def blocks(
    draws: PyTree[Draw],
    key: UInt32[Array, "2"],
    j: Integer[Array, ""] | np.uint32,
    path: UInt32[Array, " paths"],
    dtype,
) -> list[PyTree[Array]]:
    """What steps 2j and 2j + 1 take on the given paths, one entry a slot; `values` reads it.

    Args:
        draws: what a step consumes; slots are numbered in leaf order.
        key: the two key words.
        j: step // 2.
        path: global path indices.
        dtype: of the values.
    """
    packed = []
    for slot, draw in enumerate(jax.tree.leaves(draws, is_leaf=is_draw)):
        slot_key = threefry((key[0], key[1]), (jnp.uint32(j), jnp.uint32(slot)))
        like = draw.law.struct(draw.shape, dtype)
        packed.append(draw.law.pack(Block(slot_key, path), like))
    return packed


def values(
    draws: PyTree[Draw], packed: list[PyTree[Array]], parity: int, dtype
) -> PyTree[Shaped[Array, "..."]]:
    """The values of step 2j (parity 0) or 2j + 1 (parity 1) from their `blocks`, paths last."""
    leaves, treedef = jax.tree.flatten(draws, is_leaf=is_draw)
    return treedef.unflatten(
        draw.law.value(part, parity, draw.law.struct(draw.shape, dtype))
        for draw, part in zip(leaves, packed, strict=True)
    )
