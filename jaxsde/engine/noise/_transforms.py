"""From words to numbers: uniforms, log u, the two halves of Box-Muller, and whole numbers.

In float32 the logarithm and the cosine are minimax polynomials (Remez) in the words themselves, so
that no bit is lost and nothing but arithmetic runs in the loop; in float64 they are the library's.
Largest relative errors in float32 over all 2³² words, which a slow test goes through one by one:
2.6e-7 of log u, 1.7e-7 of √(-2 log u), 1.9e-7 of cos θ and sin θ, 9e-8 of u. cos θ and sin θ have
an absolute error below 1.8e-7.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

# log(1 + f) / f on [√½ - 1, √2 - 1], relative error 2.7e-8, ascending powers
_LOG = (
    0.999999974189604, -0.49999987963991793, 0.33334185625587154, -0.25002074084945997,
    0.19956833577073668, -0.1656239274257118, 0.14952266076896017, -0.1436684510498119,
    0.0872235973331797,
)  # fmt: skip
# sin(πt) / t in z = t² on [0, 1/4], relative error 5.4e-9, ascending powers
_SIN = (
    3.1415926368953926, -5.167709684798935, 2.5500697263351984, -0.5982421264220092,
    0.07756038700042375,
)  # fmt: skip


def uniform(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """u = (w + 1/2) / 2³², in (0, 1]: all 32 bits, never 0, relative precision near 0."""
    return word.astype(dtype) * 2.0**-32 + 2.0**-33


def log_uniform(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """log u of u = (w + 1/2) / 2³², to relative precision also where u is nearly 1.

    2³² u = 2^e (1 + f) with √½ <= 1 + f < √2, and log u = (e - 32) log 2 + log(1 + f); where
    e = 32, f = u - 1 comes from the complement of w, which keeps all its bits.
    """
    if dtype != jnp.float32:
        return jnp.log(uniform(word, dtype))
    bits = _as(word.astype(jnp.float32) + np.float32(0.5), jnp.int32)
    exponent = (bits - _as(np.sqrt(np.float32(0.5)), np.int32)) >> 23
    f = _as(bits - (exponent << 23), jnp.float32) - 1
    f = jnp.where(exponent == 32, -uniform(~word, jnp.float32), f)
    return (exponent - 32).astype(jnp.float32) * np.float32(np.log(2)) + f * _polynomial(_LOG, f)


def cosine(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """cos θ of θ = 2π w / 2³².

    With s = w as a signed integer, cos θ = sin(πt) of t = 1/2 - |s| / 2³¹ in [-1/2, 1/2], exact
    before it is rounded: 2³⁰ - |s| also where |-2³¹| wraps.
    """
    t = (np.int32(2**30) - jnp.abs(_as(word, jnp.int32))).astype(dtype) * 2.0**-31
    if dtype != jnp.float32:
        return jnp.sin(np.pi * t)
    return t * _polynomial(_SIN, t * t)


def sine(word: UInt32[Array, "..."], dtype) -> Float[Array, "..."]:
    """sin θ = cos(θ - π/2)."""
    return cosine(word - np.uint32(2**30), dtype)


def below(n: UInt32[Array, "..."], words: tuple[UInt32[Array, "..."], ...]) -> Int[Array, "..."]:
    """⌊n (w₀ 2³² + w₁) / 2⁶⁴⌋: uniform on 0, ..., n - 1 up to n / 2⁶⁴."""
    low = words[0] * n
    carried = low + _high_product(words[1], n)
    return (_high_product(words[0], n) + (carried < low)).astype(jnp.int32)


def _high_product(a: UInt32[Array, "..."], b: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """⌊a b / 2³²⌋ in 32 bits, by halves."""
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    (a1, a0), (b1, b0) = ((word >> half, word & mask) for word in (a, b))
    middle = a1 * b0 + ((a0 * b0) >> half)
    return a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & mask)) >> half)


def _polynomial(coefficients: tuple[float, ...], x: Float[Array, "..."]) -> Float[Array, "..."]:
    value = np.float32(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + np.float32(coefficient)
    return jnp.asarray(value)


def _as(x, dtype):
    """The same bits read as another type."""
    return jax.lax.bitcast_convert_type(x, dtype)
