"""Small networks for real data, as equinox modules called on one example.

Channels come last, and a convolution is a product of patches and a matrix: on CPUs and inside a
compiled loop this is many times faster than `jax.lax.conv`. Weights start as in equinox's layers,
uniform on ±1/√(inputs of a unit).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxsde import _checks


class Convolution(eqx.Module):
    """y[i, j] = b + Σ_{p, q, c} x[i + p - 1, j + q - 1, c] W[p, q, c], 3 x 3, x zero outside.

    (9 c + 1) c' parameters, for c channels in and c' out.

    Fields:
        weight: W, `(9 c, c')`, its rows in the order p, q, c.
        bias: b, `(c',)`.
    """

    weight: Float[Array, "patch c2"]
    bias: Float[Array, " c2"]

    def __init__(self, channels: int, out_channels: int, *, key: PRNGKeyArray):
        bound, keys = 1 / math.sqrt(9 * channels), jax.random.split(key)
        self.weight, self.bias = (
            jax.random.uniform(key, shape, minval=-bound, maxval=bound)
            for key, shape in zip(
                keys, [(9 * channels, out_channels), (out_channels,)], strict=True
            )
        )

    def __call__(self, x: Float[Array, "h w c1"]) -> Float[Array, "h w c2"]:
        """The image of the same size."""
        h, w, _ = x.shape
        around = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        views = [around[p : p + h, q : q + w] for p in range(3) for q in range(3)]
        return jnp.concatenate(views, axis=-1) @ self.weight + self.bias[None, None]


def max_pool(x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c"]:
    """The largest of every 2 x 2 pixels; an odd last row or column is left out."""
    h, w, c = x.shape
    return x[: h - h % 2, : w - w % 2].reshape(h // 2, 2, w // 2, 2, c).max((1, 3))


class ConvNet(eqx.Module):
    """Conv 3x3 c₁, ReLU, max-pool, conv 3x3 c₂, ReLU, max-pool, linear m, ReLU, linear K.

    Image `(h, w, c)` to logits `(K,)`. (9c + 1)c₁ + (9c₁ + 1)c₂ + (⌊h/4⌋⌊w/4⌋c₂ + 1)m + (m + 1)K
    parameters. With 32, 32 and 128 it is the CNN for MNIST of arXiv 2411.15958: 211,690 parameters.

    Args:
        shape: h, w, c of the images, h and w at least 4.
        classes: K.
        channels: c₁, c₂.
        hidden: m.
        key: of the starting weights.

    Raises:
        InputError: an argument out of its range.
    """

    first: Convolution
    second: Convolution
    head: eqx.nn.MLP

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 10,
        channels: tuple[int, int] = (32, 32),
        hidden: int = 128,
        *,
        key: PRNGKeyArray,
    ):
        h, w, c = sizes("shape", shape, 3)
        c1, c2 = sizes("channels", channels, 2)
        at_least_one(classes=classes, hidden=hidden)
        if min(h, w) < 4:
            raise _checks.InputError(f"two poolings need images of at least 4 x 4, got {h} x {w}")
        keys = jax.random.split(key, 3)
        self.first = Convolution(c, c1, key=keys[0])
        self.second = Convolution(c1, c2, key=keys[1])
        self.head = eqx.nn.MLP((h // 4) * (w // 4) * c2, classes, hidden, depth=1, key=keys[2])

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " K"]:
        """The logits."""
        x = max_pool(jax.nn.relu(self.first(image)))
        x = max_pool(jax.nn.relu(self.second(x)))
        return self.head(x.ravel())


class ResNet(eqx.Module):
    """Conv 3x3 c', ReLU, conv 3x3 c' added to its input, max-pool, linear m, ReLU, linear K.

    Image `(h, w, c)` to logits `(K,)`. (9c + 1)c' + (9c' + 1)c' + (⌊h/2⌋⌊w/2⌋c' + 1)m + (m + 1)K
    parameters. With 32 and 128 it is the ResNet for CIFAR-10 of arXiv 2411.15958: 1,060,138.

    Args:
        shape: h, w, c of the images, h and w at least 2.
        classes: K.
        channels: c'.
        hidden: m.
        key: of the starting weights.

    Raises:
        InputError: an argument out of its range.
    """

    first: Convolution
    second: Convolution
    head: eqx.nn.MLP

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 10,
        channels: int = 32,
        hidden: int = 128,
        *,
        key: PRNGKeyArray,
    ):
        h, w, c = sizes("shape", shape, 3)
        if min(h, w) < 2:
            raise _checks.InputError(f"the pooling needs images of at least 2 x 2, got {h} x {w}")
        at_least_one(classes=classes, channels=channels, hidden=hidden)
        keys = jax.random.split(key, 3)
        self.first = Convolution(c, channels, key=keys[0])
        self.second = Convolution(channels, channels, key=keys[1])
        self.head = eqx.nn.MLP(
            (h // 2) * (w // 2) * channels, classes, hidden, depth=1, key=keys[2]
        )

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " K"]:
        """The logits."""
        x = jax.nn.relu(self.first(image))
        return self.head(max_pool(x + self.second(x)).ravel())


class Block(eqx.Module):
    """y = x + A(N(x)), then y + M(N(y)) at every position: attention A, layer norm N, network M.

    M is linear m, GELU, linear d; the attention has no biases. 4 d² + 2 d m + 5 d + m parameters.
    Causal attention looks at no later position.
    """

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    network: eqx.nn.MLP
    causal: bool = eqx.field(static=True)

    def __init__(self, width: int, heads: int, hidden: int, causal: bool, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=keys[0])
        self.network = eqx.nn.MLP(width, width, hidden, 1, jax.nn.gelu, key=keys[1])
        self.causal = causal

    def __call__(self, x: Float[Array, "T d"]) -> Float[Array, "T d"]:
        """The sequence of the same shape."""
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool)) if self.causal else None
        z = jax.vmap(self.norms[0])(x)
        y = x + self.attention(z, z, z, mask=mask)
        return y + jax.vmap(self.network)(jax.vmap(self.norms[1])(y))


class Transformer(eqx.Module):
    """Learned positions are added, then L blocks and a layer norm: `(T, d)` to `(T, d)`.

    T d + L (4 d² + 2 d m + 5 d + m) + 2 d parameters. Positions start as N(0, 0.02²).
    """

    positions: Float[Array, "T d"]
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm

    def __init__(
        self,
        length: int,
        width: int,
        heads: int,
        hidden: int,
        depth: int,
        causal: bool,
        *,
        key: PRNGKeyArray,
    ):
        at_least_one(width=width, heads=heads, hidden=hidden, depth=depth)
        if width % heads != 0:
            raise _checks.InputError(f"heads must divide width = {width}, got {heads}")
        first, *keys = jax.random.split(key, depth + 1)
        self.positions = 0.02 * jax.random.normal(first, (length, width))
        self.blocks = tuple(Block(width, heads, hidden, causal, key=key) for key in keys)
        self.norm = eqx.nn.LayerNorm(width)

    def __call__(self, x: Float[Array, "T d"]) -> Float[Array, "T d"]:
        """The sequence of the same shape."""
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x)


class VisionTransformer(eqx.Module):
    """Patches p x p, linear d, a transformer of L blocks, the mean over patches, linear K.

    Image `(h, w, c)` to logits `(K,)`. With T = (h/p)(w/p) patches,
    (p²c + 1)d + T d + L (4 d² + 2 d m + 5 d + m) + 2 d + (d + 1)K parameters.

    Args:
        shape: h, w, c of the images.
        classes: K.
        patch: p, a divisor of h and of w.
        width: d.
        heads: of the attention, a divisor of d.
        hidden: m, the width inside a block.
        depth: L.
        key: of the starting weights.

    Raises:
        InputError: an argument out of its range.
    """

    embed: eqx.nn.Linear
    body: Transformer
    head: eqx.nn.Linear
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 10,
        patch: int = 4,
        width: int = 32,
        heads: int = 4,
        hidden: int = 64,
        depth: int = 2,
        *,
        key: PRNGKeyArray,
    ):
        h, w, c = sizes("shape", shape, 3)
        at_least_one(classes=classes)
        p = self.patch = _checks.at_least("patch", patch, 1)
        if h % p != 0 or w % p != 0:
            raise _checks.InputError(f"patch must divide the image's {h} x {w} pixels, got {p}")
        keys = jax.random.split(key, 3)
        T = (h // p) * (w // p)
        self.body = Transformer(T, width, heads, hidden, depth, causal=False, key=keys[1])
        self.embed = eqx.nn.Linear(p * p * c, width, key=keys[0])
        self.head = eqx.nn.Linear(width, classes, key=keys[2])

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " K"]:
        """The logits."""
        (h, w, c), p = image.shape, self.patch
        patches = image.reshape(h // p, p, w // p, p, c).swapaxes(1, 2).reshape(-1, p * p * c)
        return self.head(self.body(jax.vmap(self.embed)(patches)).mean(0))


class CharTransformer(eqx.Module):
    """A decoder: symbols embedded in d dimensions, a causal transformer of L blocks, linear K.

    Symbols `(T,)` in 0 ... K - 1 to the logits `(T, K)` of each next symbol.
    K d + T d + L (4 d² + 2 d m + 5 d + m) + 2 d + (d + 1)K parameters. The embedding starts as
    N(0, 0.02²).

    Args:
        symbols: K.
        length: T.
        width: d.
        heads: of the attention, a divisor of d.
        hidden: m, the width inside a block.
        depth: L.
        key: of the starting weights.

    Raises:
        InputError: an argument out of its range.
    """

    embed: Float[Array, "K d"]
    body: Transformer
    head: eqx.nn.Linear

    def __init__(
        self,
        symbols: int,
        length: int,
        width: int = 32,
        heads: int = 4,
        hidden: int = 64,
        depth: int = 2,
        *,
        key: PRNGKeyArray,
    ):
        at_least_one(symbols=symbols, length=length)
        keys = jax.random.split(key, 3)
        self.body = Transformer(length, width, heads, hidden, depth, causal=True, key=keys[1])
        self.embed = 0.02 * jax.random.normal(keys[0], (symbols, width))
        self.head = eqx.nn.Linear(width, symbols, key=keys[2])

    def __call__(self, symbols: Int[Array, " T"]) -> Float[Array, "T K"]:
        """The logits of what follows each position, given it and those before."""
        return jax.vmap(self.head)(self.body(self.embed[symbols]))


def sizes(name: str, value: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The value; refuses anything but so many whole numbers of at least 1."""
    if not isinstance(value, tuple | list) or len(value) != count:
        raise _checks.InputError(f"{name} must be {count} whole numbers, got {value!r}")
    return tuple(_checks.at_least(name, each, 1) for each in value)


def at_least_one(**values: int) -> None:
    """Refuses anything but whole numbers of at least 1."""
    for name, value in values.items():
        _checks.at_least(name, value, 1)
