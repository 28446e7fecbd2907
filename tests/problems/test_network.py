"""Networks against plain NumPy, example by example."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsde import InputError
from jaxsde.problems import Network, cross_entropy, finite_sum

N, FEATURES, HIDDEN, K = 7, 3, 4, 3
RNG = np.random.default_rng(5)
INPUTS, LABELS = RNG.standard_normal((N, FEATURES)), np.array([0, 2, 1, 1, 0, 2, 2])
PART, WEIGHTS = [5, 0, 5, 3], RNG.standard_normal(N)


def mlp():
    return eqx.nn.MLP(FEATURES, K, HIDDEN, 1, jnp.tanh, key=jax.random.key(3))


def arrays(network):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(network.x0)]


def one_example(x, a, y):
    """ℓ, ∇ℓ in leaf order, and the scores, by hand: z = W₂ tanh(W₁ a + b₁) + b₂."""
    W1, b1, W2, b2 = x
    h = np.tanh(W1 @ a + b1)
    z = W2 @ h + b2
    p = np.exp(z) / np.sum(np.exp(z))
    dz = p - np.eye(K)[y]
    dh = (1 - h**2) * (W2.T @ dz)
    gradient = [np.outer(dh, a), dh, np.outer(dz, h), dz]
    return -np.log(p[y]), np.concatenate([part.ravel() for part in gradient]), z


def answers(network, x, weights):
    return (
        network.loss(x), network.terms(x), network.gradient(x), network.gradient_norm(x),
        network.weighted_gradient(x, weights), network.gradient_variance(x), network.accuracy(x),
        network.hessian_vector_product(x, x), network.outputs(x),
        network.part(jnp.array(PART)).loss(x), network.part(jnp.array(PART)).gradient(x),
    )  # fmt: skip


BLOCKS = [(3, "float64"), (7, "float64"), (4, "float32")]


@pytest.mark.parametrize(("micro_batch", "precision"), BLOCKS)
def test_all_of_it_example_by_example(micro_batch, precision, monkeypatch):
    """Blocks of 3 and 4 do not divide the 7 examples, nor do the 2 gradients that are held."""
    with jax.enable_x64(precision == "float64"):
        network = Network(mlp(), cross_entropy, INPUTS, LABELS, micro_batch)
        d = sum(leaf.size for leaf in arrays(network))
        assert network.size == d == (FEATURES + 1) * HIDDEN + (HIDDEN + 1) * K
        assert network.count == N
        monkeypatch.setattr(finite_sum, "AT_ONCE", 2 * d)
        x = network.x0
        found = jax.jit(answers)(network, x, jnp.asarray(WEIGHTS))
        assert jax.tree.structure(found[2]) == jax.tree.structure(x)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(precision)}
        found = [ravel_pytree(tree)[0] for tree in found]
    loss, terms, gradient, norm, weighted, variance, accuracy, Hx, outputs, *part = found
    point = arrays(network)
    losses, g, z = map(np.array, zip(*[one_example(point, *row) for row in DATA], strict=True))
    rtol, atol = (2e-5, 1e-6) if precision == "float32" else (1e-12, 1e-14)

    def same(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    same(outputs, z.ravel())
    same(terms, losses)
    same(loss, losses.mean())
    same(gradient, g.mean(0))
    same(norm, np.linalg.norm(g.mean(0)))
    same(weighted, WEIGHTS @ g)
    same(variance, g.var(0))
    same(accuracy, np.mean(z.argmax(1) == LABELS))
    same(part[0], losses[PART].mean())
    same(part[1], g[PART].mean(0))
    if precision == "float64":
        same_curvature(point, Hx)


DATA = list(zip(INPUTS, LABELS, strict=True))


def same_curvature(point, Hx):
    """H x by central differences of the gradient by hand: an error of h² = 1e-10."""
    h, moved = 1e-5, []
    for sign in (1, -1):
        x = [leaf * (1 + sign * h) for leaf in point]
        moved.append(np.mean([one_example(x, *row)[1] for row in DATA], axis=0))
    np.testing.assert_allclose(Hx, (moved[0] - moved[1]) / (2 * h), atol=1e-8)


def test_blocks_of_any_size_count_every_row_once(x64):
    """Σ wᵢ vᵢ, in equal blocks that are none larger than asked for."""
    w, v = RNG.standard_normal(11), jnp.asarray(RNG.standard_normal(11))

    def dot(w, size):
        sizes = set()

        def fn(start, w):
            sizes.add(len(w))
            return jnp.sum(w * jax.lax.dynamic_slice_in_dim(v, start, len(w)))

        total = finite_sum.sum_over_blocks(fn, w, size)
        assert len(sizes) == 1
        assert max(sizes) <= size
        return total

    sums = jax.jit(lambda w: [dot(w, size) for size in range(1, 13)])(w)
    np.testing.assert_allclose(sums, w @ v, rtol=1e-13)


class Own(eqx.Module):
    """W (scale * a + b) of two inputs, and numbers that are no parameters."""

    W: jax.Array
    scale: jax.Array
    mask: jax.Array
    name: str = eqx.field(static=True, default="own")

    def __call__(self, inputs):
        u = self.scale * inputs["a"] + inputs["more"][0]
        return self.W @ jnp.where(self.mask, u, 0)


def squared(output, target):
    return jnp.sum((output - target) ** 2) / 2


def regression(micro_batch=2):
    model = Own(jnp.array(W), jnp.array([1, 2, -3]), jnp.array([True, False, True]))
    return Network(model, squared, {"a": A, "more": (B,)}, TARGETS, micro_batch)


W, A, B, TARGETS = (RNG.standard_normal(s) for s in ((2, 3), (5, 3), (5, 3), (5, 2)))


def test_a_model_and_a_loss_of_ones_own(precision):
    network, rtol = regression(), 1e-5 if precision == "float32" else 1e-12
    assert jax.tree.map(jnp.shape, jax.tree.leaves(network.x0)) == [(2, 3)]
    u = ([1, 2, -3] * A + B) * [1, 0, 1]
    residual = u @ W.T - TARGETS
    g = residual[:, :, None] * u[:, None, :]
    x = network.x0
    terms, loss, gradient, variance = jax.jit(
        lambda own, x: (own.terms(x), own.loss(x), own.gradient(x), own.gradient_variance(x))
    )(network, x)
    np.testing.assert_allclose(terms, np.sum(residual**2, axis=1) / 2, rtol=rtol)
    np.testing.assert_allclose(loss, np.sum(residual**2) / 10, rtol=rtol)
    np.testing.assert_allclose(gradient.W, g.mean(0), rtol=10 * rtol, atol=rtol)
    np.testing.assert_allclose(variance.W, g.var(0), rtol=rtol, atol=rtol)
    assert gradient.scale is None
    moved = network.model(jax.tree.map(lambda leaf: 2 * leaf, x))
    np.testing.assert_array_equal(moved.scale, [1, 2, -3])
    np.testing.assert_allclose(moved.W, 2 * W, rtol=rtol)
    assert set(network.observables()) == {"loss", "gradient_norm"}
    with pytest.raises(InputError, match="only targets that are labels"):
        network.accuracy(x)


class InAList(eqx.Module):
    """A model as many write it, which is not hashable."""

    layers: list

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_models_that_hold_lists_and_functions_compile_once():
    def network():
        keys = jax.random.split(jax.random.key(0))
        own = [eqx.nn.Linear(3, 4, key=keys[0]), jax.nn.relu, eqx.nn.Linear(4, 2, key=keys[1])]
        return Network(InAList(own), cross_entropy, A, [0, 1, 1, 0, 1])

    loss = jax.jit(chex.assert_max_traces(lambda own, x: own.loss(x), n=1))
    chex.clear_trace_counter()
    first, again = (loss(network(), network().x0) for _ in range(2))
    assert float(first) == float(again) == pytest.approx(float(network().loss(network().x0)))


class Table(eqx.Module):
    """Scores of the character that follows, by the one before."""

    scores: jax.Array

    def __call__(self, text):
        return self.scores[text]


def test_a_diverged_model_has_no_accuracy():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    network = Network(model, cross_entropy, A, [0, 1, 1, 0, 1])
    assert 0 <= float(network.accuracy(network.x0)) <= 1
    assert np.isnan(network.accuracy(jax.tree.map(lambda leaf: leaf * np.inf, network.x0)))


def test_labels_at_every_position():
    """A model of texts: outputs (T, K), labels (T,); the mean over positions and examples."""
    table = RNG.standard_normal((K, K))
    texts, following = RNG.integers(0, K, (5, 4)), RNG.integers(0, K, (5, 4))
    network = Network(Table(jnp.asarray(table)), cross_entropy, texts, following, 2)
    z = table[texts]
    p = np.exp(z) / np.sum(np.exp(z), axis=2, keepdims=True)
    chosen = np.take_along_axis(p, following[:, :, None], axis=2)
    np.testing.assert_allclose(network.loss(network.x0), -np.mean(np.log(chosen)), rtol=1e-5)
    accuracy = np.mean(z.argmax(2) == following)
    np.testing.assert_allclose(network.accuracy(network.x0), accuracy, rtol=1e-6)
    assert set(network.observables()) == {"loss", "gradient_norm", "accuracy"}


def test_no_examples_are_held_but_a_micro_batch():
    """The largest array in a gradient's program beside the data is a block's activations."""
    n, width = 640, 50
    model = eqx.nn.MLP(FEATURES, K, width, 1, key=jax.random.key(0))
    inputs, labels = np.zeros((n, FEATURES), np.float32), np.zeros(n, int)

    def largest(micro_batch):
        network = Network(model, cross_entropy, inputs, labels, micro_batch)
        compiled = jax.jit(lambda x: network.gradient(x)).lower(network.x0).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert largest(32) < largest(n) / 5


nan = INPUTS.copy()
nan[2, 1] = np.nan
BAD = {
    "no parameters": (dict(model=eqx.nn.Identity()), "no arrays of floats"),
    "lengths": (dict(targets=LABELS[:5]), r"one n of at least 1, got inputs of shape \(7, 3\)"),
    "one target": (dict(targets=1), "one n of at least 1"),
    "no examples": (dict(inputs=INPUTS[:0], targets=LABELS[:0]), "one n of at least 1"),
    "nan": (dict(inputs=nan), "inputs must be finite"),
    "nan in a tree": (dict(inputs=(INPUTS, {"b": nan})), "inputs must be finite"),
    "infinite target": (
        dict(loss=squared, targets=np.full((N, K), np.inf)), "targets must be finite"
    ),
    "label too large": (
        dict(targets=LABELS + 1),
        r"labels in 0 \.\.\. 2, as the model returns 3 numbers, got 1 \.\.\. 3",
    ),
    "negative label": (dict(targets=LABELS - 1), r"labels in 0 \.\.\. 2.*got -1 \.\.\. 1"),
    "wrong input": (dict(inputs=INPUTS[:, :2]), r"cannot be called on one input, .*\(2,\)"),
    "model with a key": (
        dict(model=eqx.nn.Sequential([mlp(), eqx.nn.Dropout()])),
        "cannot be called on one input",
    ),
    "wrong output": (
        dict(targets=np.zeros((N, 4), int)),
        r"this model returns \(3,\) for a target of shape \(4,\)",
    ),
    "labels that are no integers": (dict(targets=LABELS / 2), "the loss does not take"),
    "loss that does not fit": (
        dict(loss=squared, targets=np.zeros((N, 2))), r"the loss does not take.*shape \(2,\)"
    ),
    "loss of many numbers": (
        dict(loss=lambda z, y: z), r"the loss of one example must be one number, got .*\(3,\)"
    ),
    "loss of two": (dict(loss=lambda z, y: (z[0], z[1])), "must be one number"),
    "loss that is no array": (dict(loss=lambda z, y: 1.0), "must be one number"),
    "micro_batch": (dict(micro_batch=0), "micro_batch must be a whole number of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_networks_are_refused(name):
    changed, message = BAD[name]
    given = {"model": mlp(), "loss": cross_entropy, "inputs": INPUTS, "targets": LABELS}
    with pytest.raises(InputError, match=message):
        Network(**(given | changed))


def test_bad_points_and_rows_are_refused():
    network = regression()
    for x in ({"W": jnp.zeros((2, 3))}, jnp.zeros(6), mlp()):
        with pytest.raises(InputError, match="x must be a pytree of the model's parameters"):
            network.loss(x)
    with pytest.raises(InputError, match=r"rows must lie in 0 ... 4"):
        network.part(np.array([5]))
