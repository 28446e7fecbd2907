"""Counter-based noise: every value is a pure function of (key, step, slot, path, coordinate).

The layout is frozen. With Threefry-2x32 of 20 rounds (Salmon et al. 2011), `step // 2 = j`,

    K = Threefry(key, (j, slot)),    (w₀, w₁) = Threefry(K, (path, c)),

where `slot` counts the declared draws in leaf order and `c` the draw's coordinates in C order.
`path` is the global index, so the words depend on nothing else: not on chunks, devices, records,
the number of paths, or where a run was resumed. What an even step 2j and an odd step 2j + 1 take
from the block is written in each law. Draws before the first step use j = 2³² - 1.
"""

import abc
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, PyTree, UInt32

from jaxsde import _checks

BEFORE_FIRST_STEP = np.uint32(2**32 - 1)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

Words = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]


def threefry(key: Words, counter: Words) -> Words:
    """Threefry-2x32 with 20 rounds, unrolled; broadcasts key against counter.

    The same function as `jax.random`'s threefry2x32, bit for bit, without its rolled loop.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def key_words(key: PRNGKeyArray | UInt32[Array, "2"]) -> UInt32[Array, "2"]:
    """The two words of a threefry key, as `jax.random.key(seed)` makes it.

    Raises:
        InputError: not one key, or a key of another generator (`rbg` breaks under `vmap`).
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if jax.random.key_impl(key) != "threefry2x32":
            raise _checks.InputError(f"key must be a threefry key, got {jax.random.key_impl(key)}")
        key = jax.random.key_data(key)
    words = jnp.asarray(key)
    if words.shape != (2,) or words.dtype != jnp.uint32:
        raise _checks.InputError("key must be one JAX key: jax.random.key(seed)")
    return words


def _uniform(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """(w + 1/2) / 2³², in (0, 1]: all 32 bits, never 0, relative precision near 0."""
    return word.astype(dtype) * 2.0**-32 + 2.0**-33


def _angle(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """An angle uniform on [-π, π), the word read as a signed integer."""
    return jax.lax.bitcast_convert_type(word, jnp.int32).astype(dtype) * (np.pi * 2.0**-31)


class Law(eqx.Module):
    """The distribution of one draw."""

    @abc.abstractmethod
    def pair(self, block, coordinate: UInt32[Array, "..."], dtype) -> tuple[Any, Any]:
        """The values of an even step and of the odd step after it.

        Args:
            block: maps coordinates to the two words of their block.
            coordinate: c.
            dtype: of the values.
        """


class Normal(Law):
    """N(0, 1) by Box-Muller: √(-2 log u₀) times cos θ on even steps, sin θ on odd ones.

    u₀ comes from w₀ and θ from w₁; |value| <= 6.76.
    """

    def pair(self, block, coordinate, dtype):
        """The cosine and the sine half of one block."""
        w0, w1 = block(coordinate)
        radius = jnp.sqrt(-2 * jnp.log(_uniform(w0, dtype)))
        angle = _angle(w1, dtype)
        return radius * jnp.cos(angle), radius * jnp.sin(angle)


class Uniform(Law):
    """Uniform on (0, 1]: w₀ on even steps, w₁ on odd ones."""

    def pair(self, block, coordinate, dtype):
        """One word for each step."""
        w0, w1 = block(coordinate)
        return _uniform(w0, dtype), _uniform(w1, dtype)


class StudentT(Law):
    """Student's t with ν > 0 degrees of freedom, √(ν (u₀^(-2/ν) - 1)) cos θ (Bailey 1994).

    The sine half would be dependent on the cosine half, so each value takes a whole block: the
    coordinate is 2c on even steps and 2c + 1 on odd ones.
    """

    degrees_of_freedom: Float[Array, ""]

    def pair(self, block, coordinate, dtype):
        """One block for each step."""
        nu = self.degrees_of_freedom

        def value(parity):
            w0, w1 = block(2 * coordinate + np.uint32(parity))
            log_u = jnp.log(_uniform(w0, dtype))
            root = jnp.exp(-log_u / nu) * jnp.sqrt(-jnp.expm1(2 / nu * log_u))  # not of a large sum
            return jnp.sqrt(nu) * root * jnp.cos(_angle(w1, dtype))

        return value(0), value(1)


class Draw(eqx.Module):
    """A declaration of what one step consumes: an array of `shape`, its entries i.i.d. `law`.

    Args:
        shape: of one path's draw.
        law: `Normal()`, `Uniform()` or `StudentT(degrees_of_freedom)`.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    law: Law

    def __check_init__(self):
        if int(np.prod(self.shape)) >= 2**31:
            raise _checks.InputError(f"a draw has at most 2³¹ - 1 coordinates, got {self.shape}")


def is_draw(node: Any) -> bool:
    """Whether a pytree node is a `Draw`."""
    return isinstance(node, Draw)


def structure(draws: PyTree[Draw], dtype) -> PyTree[jax.ShapeDtypeStruct]:
    """The shapes of one path's values."""
    return jax.tree.map(
        lambda draw: jax.ShapeDtypeStruct(draw.shape, dtype), draws, is_leaf=is_draw
    )


class Halves(NamedTuple):
    """The values of an even step and of the odd step after it."""

    even: PyTree[Float[Array, "..."]]
    odd: PyTree[Float[Array, "..."]]


def _block(slot_key: Words, path: UInt32[Array, "..."], coordinate: UInt32[Array, "..."]) -> Words:
    return threefry(slot_key, (path, coordinate))


def pair(
    draws: PyTree[Draw],
    key: UInt32[Array, "2"],
    j: Integer[Array, ""] | np.uint32,
    path: UInt32[Array, " paths"],
    dtype,
) -> Halves:
    """The values of steps 2j and 2j + 1 on the given paths, paths on the last axis.

    Args:
        draws: what a step consumes; slots are numbered in leaf order.
        key: the two key words.
        j: step // 2.
        path: global path indices.
        dtype: of the values.
    """
    leaves, treedef = jax.tree.flatten(draws, is_leaf=is_draw)
    even, odd = [], []
    for slot, draw in enumerate(leaves):
        slot_key = threefry((key[0], key[1]), (jnp.uint32(j), jnp.uint32(slot)))
        size = int(np.prod(draw.shape))
        coordinate = jnp.arange(size, dtype=jnp.uint32).reshape(*draw.shape, 1)
        paths = path.reshape((1,) * len(draw.shape) + path.shape)
        block = functools.partial(_block, slot_key, paths)
        values = draw.law.pair(block, coordinate, dtype)
        even.append(values[0])
        odd.append(values[1])
    return Halves(treedef.unflatten(even), treedef.unflatten(odd))
