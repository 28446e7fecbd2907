import functools
import sys

import jax
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.problems import (
    breast_cancer,
    breast_cancer_mlp,
    digits,
    digits_cnn,
    digits_resnet,
    digits_vit,
    python_text,
    text_transformer,
)

MAKERS = {  # the problem, its parameters as printed in its docstring, its examples
    "mlp": (breast_cancer_mlp, 4022, 569),
    "cnn": (digits_cnn, 7290, 1797),
    "resnet": (digits_resnet, 5122, 1797),
    "vit": (digits_vit, 9482, 1797),
    "text": (text_transformer, 13_217, 256),
}


@jax.jit
def gradient(problem, x):
    return problem.gradient(x)


@jax.jit
def loss_of(problem, x):
    return problem.loss(x)


@functools.cache
def made(name):
    return MAKERS[name][0]()


@pytest.mark.parametrize("name", MAKERS)
def test_problems_have_their_sizes_and_starts_their_seeds(name):
    make, size, count = MAKERS[name]
    problem = made(name)
    assert (problem.size, problem.count) == (size, count)
    assert {"loss", "accuracy"} <= set(problem.observables())
    start, again, other = (jax.tree.leaves(own.x0) for own in (problem, make(seed=0), make(seed=1)))
    assert all(map(np.array_equal, start, again))
    fixed = [np.ptp(leaf) == 0 for leaf in start]  # the norms
    np.testing.assert_array_equal(list(map(np.array_equal, start, other)), fixed)


@pytest.mark.parametrize("name", MAKERS)
def test_every_parameter_matters(name):
    problem = made(name).part(np.arange(16))
    slopes = gradient(problem, problem.x0)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(slopes))


def test_the_mlp_is_ten_dense_layers_with_relu():
    problem = made("mlp")
    layers = jax.tree.map(np.asarray, problem.x0.layers)
    assert [layer.weight.shape for layer in layers] == [(20, 30), *[(20, 20)] * 8, (2, 20)]
    np.testing.assert_array_equal(problem.inputs, breast_cancer().features[:, :30])
    np.testing.assert_array_equal(problem.targets, breast_cancer().labels)
    z = np.asarray(problem.inputs)
    for layer in layers[:-1]:
        z = np.maximum(z @ layer.weight.T + layer.bias, 0)
    z = z @ layers[-1].weight.T + layers[-1].bias
    right = np.take_along_axis(z, np.asarray(problem.targets)[:, None], axis=1)[:, 0]
    loss = np.mean(np.log(np.exp(z).sum(1)) - right)
    assert float(loss_of(problem, problem.x0)) == pytest.approx(loss, rel=1e-5)


def test_the_digits_are_the_first_so_many(precision):
    images, labels = digits()
    problem = digits_cnn((1, 1), 1, images=60)
    assert problem.inputs.dtype == precision
    assert {leaf.dtype.name for leaf in jax.tree.leaves(problem.x0)} == {precision}
    np.testing.assert_array_equal(problem.inputs, images[:60])
    np.testing.assert_array_equal(problem.targets, labels[:60])


def test_the_text_is_pythons_own_or_yours():
    problem, text = made("text"), python_text()
    inputs, targets = np.asarray(problem.inputs), np.asarray(problem.targets)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    meaning = {}
    for i, symbols in enumerate(inputs):
        start = i * ((len(text) - 1) // 256)
        for symbol, character in zip(symbols, text[start : start + 16], strict=True):
            meaning.setdefault(int(symbol), set()).add(character)
    assert len(meaning) > 40
    assert all(len(characters) == 1 for symbol, characters in meaning.items() if symbol < 64)
    for symbols, kept in ((65, 7), (5, 5)):
        mine = text_transformer("to be or not to be", 4, 2, symbols, 4, 2, 4)  # ' benort'
        assert (mine.inputs.shape, mine.x0.embed.shape) == ((2, 4), (kept, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: breast_cancer_mlp(-1), "seed must be a whole number of at least 0"),
        (lambda: digits_cnn(seed=0.5), "seed must be a whole number of at least 0"),
        (lambda: digits_cnn(images=0), "images must be a whole number of at least 1"),
        (lambda: digits_resnet(images=1798), "there are 1797 images of digits, 1798 were asked"),
        (lambda: digits_cnn(channels=16), "channels must be 2 whole numbers"),
        (lambda: digits_vit(patch=3), "patch must divide the image's 8 x 8 pixels, got 3"),
        (lambda: text_transformer("short"), "need a text of 4097 or more, got 5"),
        (lambda: text_transformer(heads=5), "heads must divide width = 32, got 5"),
    ],
)
def test_bad_requests_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("make", [breast_cancer_mlp, digits_cnn, digits_resnet, digits_vit])
def test_scikit_learn_is_an_extra(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxsde\[data\]'"):
        make()
