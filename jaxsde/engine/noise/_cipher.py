"""The cipher behind the words, and its key."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from jaxsde import _checks

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
