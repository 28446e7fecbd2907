"""Networks on real data that need no download, in the precision that JAX is set to.

Each starts at weights drawn by its seed, `x0`, as equinox's layers are.
"""

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from jaxsde import _checks
from jaxsde.problems.architectures import CharTransformer, ConvNet, ResNet, VisionTransformer
from jaxsde.problems.datasets import characters, digits, python_text
from jaxsde.problems.network import Network, cross_entropy
from jaxsde.problems.regression import breast_cancer_data

DIGIT = (8, 8, 1)


def breast_cancer_mlp(seed: int = 0) -> Network:
    """Ten dense layers 30, 20, ..., 20, 2 with ReLU on the Wisconsin breast cancer data.

    569 tumours, 30 standardised features; 4,022 parameters. The network of arXiv 2411.15958.

    Raises:
        InputError: seed is no whole number of at least 0.
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    features, labels = breast_cancer_data()
    model = eqx.nn.MLP(30, 2, 20, depth=9, key=key_of(seed))
    return Network(model, cross_entropy, features, labels)


def digits_cnn(
    channels: tuple[int, int] = (16, 16), hidden: int = 64, images: int | None = None, seed: int = 0
) -> Network:
    """A `ConvNet` on scikit-learn's 8 x 8 digits; 7,290 parameters as it stands.

    Args:
        channels: of the two convolutions.
        hidden: units between the two linear maps.
        images: the first so many, at most 1,797; all if None.
        seed: of the starting weights.

    Raises:
        InputError: an argument out of its range.
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    return on_digits(ConvNet(DIGIT, 10, channels, hidden, key=key_of(seed)), images)


def digits_resnet(
    channels: int = 8, hidden: int = 32, images: int | None = None, seed: int = 0
) -> Network:
    """A `ResNet` on scikit-learn's 8 x 8 digits; 5,122 parameters as it stands.

    Args:
        channels: of both convolutions.
        hidden: units between the two linear maps.
        images: the first so many, at most 1,797; all if None.
        seed: of the starting weights.

    Raises:
        InputError: an argument out of its range.
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    return on_digits(ResNet(DIGIT, 10, channels, hidden, key=key_of(seed)), images)


def digits_vit(
    patch: int = 4,
    width: int = 32,
    heads: int = 2,
    hidden: int = 64,
    depth: int = 1,
    images: int | None = None,
    seed: int = 0,
) -> Network:
    """A `VisionTransformer` on scikit-learn's 8 x 8 digits; 9,482 parameters as it stands.

    Args:
        patch: pixels along a side of a patch: 1, 2, 4 or 8.
        width: of a patch's vector.
        heads: of the attention, a divisor of width.
        hidden: the width inside a block.
        depth: the number of blocks.
        images: the first so many, at most 1,797; all if None.
        seed: of the starting weights.

    Raises:
        InputError: an argument out of its range.
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    model = VisionTransformer(DIGIT, 10, patch, width, heads, hidden, depth, key=key_of(seed))
    return on_digits(model, images)


def text_transformer(
    text: str | None = None,
    length: int = 16,
    sequences: int = 256,
    symbols: int = 65,
    width: int = 32,
    heads: int = 2,
    hidden: int = 64,
    depth: int = 1,
    seed: int = 0,
) -> Network:
    """A `CharTransformer` that predicts every next character of a text; 13,217 parameters.

    Args:
        text: what to learn; `python_text()`, which is Python's own help, if None.
        length: characters in a sequence.
        sequences: how many, spread over the text; see `characters`.
        symbols: the most symbols, the rarest characters becoming one.
        width: of a symbol's vector.
        heads: of the attention, a divisor of width.
        hidden: the width inside a block.
        depth: the number of blocks.
        seed: of the starting weights.

    Raises:
        InputError: a text too short, or an argument out of its range.
    """
    text = python_text() if text is None else text
    inputs, targets, alphabet = characters(text, length, sequences, symbols)
    model = CharTransformer(len(alphabet), length, width, heads, hidden, depth, key=key_of(seed))
    return Network(model, cross_entropy, inputs, targets)


def key_of(seed: int) -> PRNGKeyArray:
    """A key; refuses what is no seed."""
    return jax.random.key(_checks.at_least("seed", seed, 0))


def on_digits(model: eqx.Module, images: int | None) -> Network:
    """The classification of the first so many digits."""
    pixels, labels = digits()
    count = len(labels) if images is None else _checks.at_least("images", images, 1)
    if count > len(labels):
        raise _checks.InputError(
            f"there are {len(labels)} images of digits, {count} were asked for"
        )
    return Network(model, cross_entropy, pixels[:count], labels[:count])
