import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.problems import CharTransformer, ConvNet, ResNet, VisionTransformer
from jaxsde.problems.architectures import Block, Convolution, max_pool

RNG = np.random.default_rng(8)
KEY = jax.random.key(3)


def is_shape(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct)


def count(make, *arguments):
    """The number of parameters, without making them."""
    shapes = eqx.filter_eval_shape(make, *arguments, key=KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if is_shape(leaf))


def drawn(make, *arguments):
    """The model with N(0, 0.3²) for all parameters: also norms and positions must count."""
    return jax.tree.map(
        lambda leaf: (
            (0.3 * RNG.normal(size=leaf.shape)).astype(leaf.dtype) if is_shape(leaf) else leaf
        ),
        eqx.filter_eval_shape(make, *arguments, key=KEY),
    )


def relu(x):
    return np.maximum(x, 0)


def linear(layer, x):
    return layer.weight @ x + (0 if layer.bias is None else layer.bias)


def head(mlp, x):
    first, last = mlp.layers
    return linear(last, relu(linear(first, x)))


def convolution(layer, x):
    """Pixel by pixel; tap (p, q, c) of the kernel is row 3 p c₁ + q c₁ + c of the matrix."""
    h, w, c1 = x.shape
    kernel = layer.weight.reshape(3, 3, c1, -1)
    y = np.zeros((h, w, kernel.shape[-1])) + layer.bias
    for i, j, p, q in np.ndindex(h, w, 3, 3):
        if 0 <= i + p - 1 < h and 0 <= j + q - 1 < w:
            y[i, j] += x[i + p - 1, j + q - 1] @ kernel[p, q]
    return y


def pool(x):
    h, w, c = x.shape
    y = np.zeros((h // 2, w // 2, c))
    for i, j in np.ndindex(h // 2, w // 2):
        y[i, j] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1))
    return y


def layer_norm(norm, x):
    return norm.weight * (x - x.mean()) / np.sqrt(x.var() + 1e-5) + norm.bias


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(own, z, heads, causal):
    """Position by position and head by head."""
    T, d = z.shape
    size, y = d // heads, np.zeros((T, d))
    for t in range(T):
        seen = z[: t + 1] if causal else z
        for rows in (slice(h * size, (h + 1) * size) for h in range(heads)):
            query = own.query_proj.weight[rows] @ z[t]
            scores = np.array([query @ (own.key_proj.weight[rows] @ s) for s in seen])
            weights = np.exp(scores / np.sqrt(size))
            values = np.array([own.value_proj.weight[rows] @ s for s in seen])
            y[t, rows] = weights @ values / weights.sum()
    return y @ own.output_proj.weight.T


def transformer(own, x, heads, causal):
    x = x + own.positions
    for block in own.blocks:
        z = np.array([layer_norm(block.norms[0], row) for row in x])
        x = x + attention(block.attention, z, heads, causal)
        first, last = block.network.layers
        x = np.array(
            [r + linear(last, gelu(linear(first, layer_norm(block.norms[1], r)))) for r in x]
        )
    return np.array([layer_norm(own.norm, row) for row in x])


@eqx.filter_jit
def outputs(model, batch):
    return jax.vmap(model)(batch)


def check(model, one, expected):
    """Within vmap, as a network calls it."""
    for each in outputs(model, jnp.stack([one, one])):
        np.testing.assert_allclose(each, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 2)])
def test_a_convolution_is_its_sum_over_pixels(shape, x64):
    layer = drawn(Convolution, shape[-1], 4)
    assert count(Convolution, shape[-1], 4) == (9 * shape[-1] + 1) * 4
    image = RNG.normal(size=shape)
    check(layer, jnp.array(image), convolution(layer, image))


def test_a_convolution_is_laxs(x64):
    layer, image = drawn(Convolution, 2, 4), RNG.normal(size=(1, 6, 5, 2))
    kernel = layer.weight.reshape(3, 3, 2, 4)
    theirs = jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    np.testing.assert_allclose(layer(image[0]), theirs + layer.bias[None, None], rtol=1e-12)


def test_an_odd_last_row_and_column_are_not_pooled():
    image = RNG.normal(size=(5, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(max_pool(image), pool(image).astype(np.float32))


def test_the_convolutional_network(x64):
    net = ConvNet, (9, 6, 2), 5, (3, 4), 7
    own = drawn(*net)
    assert count(*net) == (9 * 2 + 1) * 3 + (9 * 3 + 1) * 4 + (2 * 1 * 4 + 1) * 7 + 8 * 5
    image = RNG.normal(size=(9, 6, 2))
    x = pool(relu(convolution(own.first, image)))
    x = pool(relu(convolution(own.second, x)))
    check(own, jnp.array(image), head(own.head, x.ravel()))


def test_the_residual_network(x64):
    net = ResNet, (5, 4, 2), 5, 3, 7
    own = drawn(*net)
    assert count(*net) == (9 * 2 + 1) * 3 + (9 * 3 + 1) * 3 + (2 * 2 * 3 + 1) * 7 + 8 * 5
    image = RNG.normal(size=(5, 4, 2))
    x = relu(convolution(own.first, image))
    x = pool(x + convolution(own.second, x))
    check(own, jnp.array(image), head(own.head, x.ravel()))


def test_the_vision_transformer(x64):
    net = VisionTransformer, (6, 4, 3), 5, 2, 8, 2, 7, 2
    own = drawn(*net)
    T, block = 6, 4 * 64 + 2 * 8 * 7 + 5 * 8 + 7
    assert count(*net) == (12 + 1) * 8 + T * 8 + 2 * block + 2 * 8 + 9 * 5
    image = RNG.normal(size=(6, 4, 3))
    tokens = [
        linear(own.embed, image[i : i + 2, j : j + 2].ravel()) for i in (0, 2, 4) for j in (0, 2)
    ]
    mean = transformer(own.body, np.array(tokens), 2, causal=False).mean(0)
    check(own, jnp.array(image), linear(own.head, mean))


def test_the_character_transformer(x64):
    net = CharTransformer, 11, 6, 8, 2, 7, 2
    own = drawn(*net)
    block = 4 * 64 + 2 * 8 * 7 + 5 * 8 + 7
    assert count(*net) == 11 * 8 + 6 * 8 + 2 * block + 2 * 8 + 9 * 11
    symbols = np.array([3, 10, 0, 3, 5, 7])
    y = transformer(own.body, own.embed[symbols], 2, causal=True)
    expected = np.array([linear(own.head, row) for row in y])
    check(own, jnp.array(symbols), expected)


@pytest.mark.parametrize(
    ("net", "one"),
    [
        ((ConvNet, (28, 28, 1)), np.ones((28, 28, 1))),
        ((ResNet, (32, 32, 3)), np.ones((32, 32, 3))),
        ((VisionTransformer, (28, 28, 1)), np.ones((28, 28, 1))),
        ((CharTransformer, 65, 32), np.ones(32, int)),
    ],
)
def test_models_have_the_precision_that_jax_is_set_to(net, one, precision):
    make, *arguments = net
    model = eqx.filter_eval_shape(make, *arguments, key=KEY)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model) if is_shape(leaf)} == {precision}
    result = eqx.filter_eval_shape(lambda own, one: own(one), model, jnp.asarray(one))
    assert result.dtype == precision


def test_no_character_looks_ahead(x64):
    model = drawn(CharTransformer, 11, 6, 8, 2, 7, 2)
    symbols = np.array([3, 10, 0, 3, 5, 7])
    changed = np.where(np.eye(6, dtype=bool), 1, symbols[None])
    before, *after = outputs(model, jnp.concatenate([symbols[None], changed]))
    for t, logits in enumerate(after):  # character t is another
        np.testing.assert_array_equal(logits[:t], before[:t])
        assert np.all(np.abs(logits[t:] - before[t:]).max(axis=1) > 1e-6)


def test_other_blocks_look_everywhere(x64):
    x = RNG.normal(size=(6, 8))
    changed = x.copy()
    changed[-1] += RNG.normal(size=8)
    before, after = outputs(drawn(Block, 8, 2, 7, False), jnp.array([x, changed]))
    assert np.all(np.abs(after - before).max(axis=1) > 1e-6)


def test_the_published_networks_have_their_sizes():
    """9 c + 1 weights a channel of a convolution, inputs + 1 a unit of a linear map."""
    cnn = 10 * 32 + 289 * 32 + (7 * 7 * 32 + 1) * 128 + 129 * 10
    assert count(ConvNet, (28, 28, 1)) == cnn == 211_690
    resnet = 28 * 32 + 289 * 32 + (16 * 16 * 32 + 1) * 128 + 129 * 10
    assert count(ResNet, (32, 32, 3)) == resnet == 1_060_138


def test_convolutions_start_uniform(x64):
    """18,432 uniforms on ±1/√(9 c): their variance is a third of it squared, 5 % is 7 sigma."""
    layer, bound = Convolution(64, 32, key=KEY), 1 / np.sqrt(9 * 64)
    assert np.abs(layer.weight).max() == pytest.approx(bound, rel=1e-2)
    assert np.abs(layer.weight).max() <= bound
    assert np.abs(layer.bias).max() <= bound
    assert np.var(layer.weight) == pytest.approx(bound**2 / 3, rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNet((28, 28), key=KEY), "shape must be 3 whole numbers"),
        (lambda: ConvNet((28, 28, 0), key=KEY), "shape must be a whole number of at least 1"),
        (lambda: ConvNet((3, 28, 1), key=KEY), "at least 4 x 4, got 3 x 28"),
        (lambda: ConvNet((28, 28, 1), channels=8, key=KEY), "channels must be 2 whole numbers"),
        (lambda: ConvNet((28, 28, 1), 0, key=KEY), "classes must be a whole number"),
        (lambda: ConvNet((28, 28, 1), hidden=0, key=KEY), "hidden must be a whole number"),
        (lambda: ResNet((1, 8, 3), key=KEY), "at least 2 x 2, got 1 x 8"),
        (lambda: ResNet((8, 8, 3), channels=(8, 8), key=KEY), "channels must be a whole number"),
        (lambda: ResNet((8, 8, 3), 0, key=KEY), "classes must be a whole number"),
        (lambda: ResNet((8, 8, 3), hidden=-1, key=KEY), "hidden must be a whole number"),
        (lambda: VisionTransformer((8, 8, 1), patch=3, key=KEY), "patch must divide the image's 8"),
        (lambda: VisionTransformer((8, 6, 1), patch=4, key=KEY), "patch must divide the image's 8"),
        (lambda: VisionTransformer((8, 8, 1), patch=0, key=KEY), "patch must be a whole number"),
        (lambda: VisionTransformer((8, 8, 1), 0, key=KEY), "classes must be a whole number"),
        (lambda: VisionTransformer((8, 8, 1), heads=3, key=KEY), "heads must divide width = 32"),
        (lambda: VisionTransformer((8, 8, 1), depth=0, key=KEY), "depth must be a whole number"),
        (lambda: CharTransformer(0, 8, key=KEY), "symbols must be a whole number"),
        (lambda: CharTransformer(65, 0, key=KEY), "length must be a whole number"),
        (lambda: CharTransformer(65, 8, width=0, key=KEY), "width must be a whole number"),
        (lambda: CharTransformer(65, 8, heads=0, key=KEY), "heads must be a whole number"),
        (lambda: CharTransformer(65, 8, hidden=0, key=KEY), "hidden must be a whole number"),
        (lambda: CharTransformer(65, 8, width=10, key=KEY), "heads must divide width = 10, got 4"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
