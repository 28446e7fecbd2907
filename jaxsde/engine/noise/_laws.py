"""The laws that a draw can have, and what each takes from its blocks."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxsde import _checks
from jaxsde.engine.noise._cipher import Words, threefry
from jaxsde.engine.noise._transforms import below, cosine, log_uniform, sine, uniform


class Block(NamedTuple):
    """The blocks of one slot of one pair of steps, on some paths.

    Fields:
        key: K, the slot's.
        path: global path indices.
    """

    key: Words
    path: UInt32[Array, " paths"]

    def __call__(self, shape: tuple[int, ...], stride: int = 1, offset: int = 0) -> Words:
        """The words of coordinates stride c + offset, c in C order over `shape`, paths last."""
        c = jnp.arange(int(np.prod(shape)), dtype=jnp.uint32).reshape(*shape, 1)
        path = self.path.reshape((1,) * len(shape) + self.path.shape)
        return threefry(self.key, (path, c * np.uint32(stride) + np.uint32(offset)))


class Law(eqx.Module):
    """The distribution of one draw's entries.

    The two steps of a pair share their blocks. `pack` computes what both need, once and in one
    array where that can be (two arrays would cost the cipher twice: XLA compiles a CPU kernel for
    each); `value` reads one step's value from it.
    """

    def struct(self, shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        """The shape and dtype of one path's value."""
        return jax.ShapeDtypeStruct(shape, dtype)

    @abc.abstractmethod
    def pack(self, block: Block, like: jax.ShapeDtypeStruct) -> Any:
        """What steps 2j and 2j + 1 take from the blocks; one path's value is `like` that."""

    @abc.abstractmethod
    def value(self, packed: Any, parity: int, like: jax.ShapeDtypeStruct) -> Array:
        """The value of step 2j + parity, paths last."""


class _Continuous(Law):
    """A law with a density: the two values packed as a complex number."""

    @abc.abstractmethod
    def pair(self, block: Block, shape: tuple[int, ...], dtype) -> tuple[Array, Array]:
        """The values of the two steps."""

    def pack(self, block, like):
        """even + i odd."""
        return jax.lax.complex(*self.pair(block, like.shape, like.dtype))

    def value(self, packed, parity, like):
        """The real part on even steps, the imaginary part on odd ones."""
        return jnp.imag(packed) if parity else jnp.real(packed)


class Normal(_Continuous):
    """N(0, 1) by Box-Muller: √(-2 log u₀) times cos θ on even steps, sin θ on odd ones.

    u₀ = (w₀ + 1/2) / 2³² and θ = 2π w₁ / 2³². |value| <= √(66 log 2) = 6.76, beyond which the
    law has 1.4e-11. As a function of the words each value has a relative error below 4.1e-7 in
    float32 and 5e-16 in float64.
    """

    def pair(self, block, shape, dtype):
        """The cosine and the sine half of one block."""
        w0, w1 = block(shape)
        radius = jnp.sqrt(-2 * log_uniform(w0, dtype))
        return radius * cosine(w1, dtype), radius * sine(w1, dtype)


class Uniform(_Continuous):
    """Uniform on (0, 1], (w + 1/2) / 2³²: w₀ on even steps, w₁ on odd ones.

    The smallest value is 2⁻³³. Exact in float64; in float32 with a relative error below 9e-8.
    """

    def pair(self, block, shape, dtype):
        """One word for each step."""
        w0, w1 = block(shape)
        return uniform(w0, dtype), uniform(w1, dtype)


class StudentT(_Continuous):
    """Student's t with ν > 0 degrees of freedom, √(ν (u₀^(-2/ν) - 1)) cos θ (Bailey 1994).

    The sine half would be dependent on the cosine half, so each value takes a whole block: the
    coordinate is 2c on even steps and 2c + 1 on odd ones. |value| <= √(ν (2^(66/ν) - 1)), beyond
    which the law has less than 2⁻³³; float32 holds all of it for ν >= 0.26, and below has ±inf
    there. As a function of the words each value has a relative error below 1e-6 (1 + 3/ν) in
    float32 and 2e-15 (1 + 3/ν) in float64.

    Raises:
        InputError: ν is not positive and finite.
    """

    degrees_of_freedom: Float[Array, ""]

    def __check_init__(self):
        _checks.positive("degrees_of_freedom", self.degrees_of_freedom)

    def pair(self, block, shape, dtype):
        """One block for each step."""
        nu = jnp.asarray(self.degrees_of_freedom, dtype)

        def value(parity):
            w0, w1 = block(shape, stride=2, offset=parity)
            log_u = log_uniform(w0, dtype)
            root = jnp.exp(-log_u / nu) * jnp.sqrt(-jnp.expm1(2 / nu * log_u))  # not of a large sum
            return jnp.sqrt(nu) * root * cosine(w1, dtype)

        return value(0), value(1)


class Rademacher(Law):
    """±1 with probability 1/2 each, one bit a value: 1 - 2 bit.

    Coordinate c takes bit c mod 32 of the block of coordinate c // 32: of w₀ on even steps, of w₁
    on odd ones.
    """

    def pack(self, block, like):
        """The words, 32 coordinates in each."""
        return block((-(-like.size // 32),))

    def value(self, packed, parity, like):
        """The step's bits as signs."""
        place = jnp.arange(32, dtype=jnp.uint32).reshape(1, 32, 1)
        bits = (packed[parity][:, None] >> place) & np.uint32(1)
        paths = bits.shape[-1]
        bits = bits.reshape(-1, paths)[: like.size].reshape(*like.shape, paths)
        return 1 - 2 * bits.astype(like.dtype)


class Index(Law):
    """`batch` whole numbers from 0, ..., n - 1, as a last axis of the value.

    With replacement they are ⌊n U⌋ of U = w₀ / 2³² + w₁ / 2⁶⁴, uniform up to n / 2⁶⁴; without it
    they are a uniform subset by Floyd's method (Bentley and Floyd 1987), whose order is not random.
    Each takes a whole block: the coordinate is 2c on even steps and 2c + 1 on odd ones.

    Args:
        n: how many there are to choose from.
        batch: how many are chosen.
        replace: whether one may be chosen twice.

    Raises:
        InputError: n or batch below one, n of 2³¹ or more, or more chosen than there are.
    """

    n: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    replace: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        _checks.at_least("n", self.n, 1)
        _checks.at_least("batch", self.batch, 1)
        if self.n >= 2**31:
            raise _checks.InputError(f"n must be below 2³¹, got {self.n}")
        if not self.replace and self.batch > self.n:
            raise _checks.InputError(
                f"a batch of {self.batch} without replacement needs as many to choose from, "
                f"got n = {self.n}"
            )

    def struct(self, shape, dtype):
        """Whole numbers, the batch last."""
        return jax.ShapeDtypeStruct((*shape, self.batch), jnp.int32)

    def pack(self, block, like):
        """Both steps' numbers."""
        return tuple(self._choose(block, like.shape, parity) for parity in (0, 1))

    def value(self, packed, parity, like):
        """The step's numbers."""
        return packed[parity]

    def _choose(self, block: Block, shape: tuple[int, ...], parity: int) -> Int[Array, "..."]:
        words = block(shape, stride=2, offset=parity)
        if self.replace:
            return below(jnp.uint32(self.n), words)
        first = self.n - self.batch
        last = jnp.arange(first, self.n).reshape((1,) * (len(shape) - 1) + (-1, 1))
        drawn = below(last.astype(jnp.uint32) + np.uint32(1), words)

        def choose(i, chosen):
            """The i-th number drawn, or the largest allowed where that was taken."""
            number = jax.lax.dynamic_slice_in_dim(drawn, i, 1, axis=-2)
            taken = jnp.any(chosen == number, axis=-2, keepdims=True)
            number = jnp.where(taken, first + i, number)
            return jax.lax.dynamic_update_slice_in_dim(chosen, number, i, axis=-2)

        return jax.lax.fori_loop(0, self.batch, choose, jnp.full_like(drawn, -1))
