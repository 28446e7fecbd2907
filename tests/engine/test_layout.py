"""What a step multiplies, by hand; paths one after the other; what that holds in memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxsde import OptimizerProcess, simulate
from jaxsde.engine import evolve, layout, plan, start
from jaxsde.engine.batching import OverPaths
from jaxsde.engine.devices import paths_mesh
from jaxsde.families import family
from jaxsde.oracles import FullBatch, GaussianNoise
from jaxsde.problems import LogisticRegression, Network, cross_entropy


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@jax.custom_jvp
def times(a, b):
    return a @ b


times.defjvps(None, None)


def steps(x, a):
    return lax.scan(lambda x, b: (a @ x + b, x), x, jnp.ones((5, 3)))[0]


def either(x, a):
    return lax.cond(x[0] > 0, lambda: a @ x, lambda: a @ (a @ x))


def last_of_many(x, a):
    return lax.while_loop(lambda x: x[0] > 1, lambda x: a @ x, x)


def scaled(x, a):
    return (2 * a) @ a, x


VECTOR, MATRIX = array(3), array(3, 3)
COUNTED = {  # of two arguments: multiplications if both, the first, or the second, depend on paths
    "dot": (jnp.matmul, array(3, 4), array(4, 5), 60, 60),
    "batched dot": (jax.vmap(jnp.matmul), array(7, 3, 4), array(7, 4, 5), 420, 420),
    "dot over two axes": (
        lambda a, b: jnp.tensordot(a, b, 2), array(2, 3, 4), array(3, 4, 5), 120, 120
    ),
    "convolution": (
        lambda a, w: lax.conv(a, w, (1, 1), "VALID"), array(1, 2, 8, 8), array(3, 2, 3, 3),
        6 * 6 * 3 * 2 * 9, 6 * 6 * 3 * 2 * 9,
    ),
    "convolution in groups": (
        lambda a, w: lax.conv_general_dilated(a, w, (2, 2), "SAME", feature_group_count=2),
        array(1, 2, 8, 8), array(4, 1, 3, 3), 4 * 4 * 4 * 9, 4 * 4 * 4 * 9,
    ),
    "gradient of a convolution": (
        lambda a, w: jax.vjp(lambda w: lax.conv(a, w, (1, 1), "VALID"), w)[1](
            jnp.ones((1, 3, 6, 6))
        ),
        array(1, 2, 8, 8), array(3, 2, 3, 3), 6 * 6 * 3 * 2 * 9, 2 * 6 * 6 * 3 * 2 * 9,
    ),
    "scan": (steps, VECTOR, MATRIX, 45, 45),
    "the dearer branch": (either, VECTOR, MATRIX, 18, 18),
    "one turn of a loop": (last_of_many, VECTOR, MATRIX, 9, 9),
    "jit": (jax.jit(jnp.matmul), array(3, 4), array(4, 5), 60, 60),
    "own rule": (times, array(3, 4), array(4, 5), 60, 60),
    "checkpoint": (jax.checkpoint(jnp.matmul), array(3, 4), array(4, 5), 60, 60),
    "no product": (lambda a, b: jnp.sum(a * b[:, 0]), array(3), array(3, 4), 0, 0),
}  # fmt: skip


def counted(fn, args, varies):
    return layout.work(jax.make_jaxpr(fn)(*args).jaxpr, varies)


@pytest.mark.parametrize("name", COUNTED)
def test_multiplications_by_hand(name):
    fn, a, b, own, everything = COUNTED[name]
    both = counted(fn, (a, b), [True, True])
    assert (both.own, both.all) == (own, everything)
    one = counted(fn, (a, b), [True, False])
    # A loop of any length is taken to make all that it holds the path's.
    assert (one.own, one.all) == (9 if name == "one turn of a loop" else 0, everything)
    assert counted(fn, (a, b), [False, False])[:2] == (0, 0)


def test_what_no_path_changes_is_no_work():
    """(2a) a of a shared a; a gradient's products with data are not the path's own."""
    assert counted(scaled, (VECTOR, MATRIX), [True, False])[:2] == (0, 0)
    data, target = np.ones((50, 4), np.float32), np.ones((50, 2), np.float32)

    def loss(W1, W2):
        return jnp.sum((jnp.tanh(data @ W1) @ W2 - target) ** 2)

    found = counted(jax.grad(loss, argnums=(0, 1)), (array(4, 3), array(3, 2)), [True, True])
    # Forward: data W₁ and h W₂; back: hᵀ δ, δ W₂ᵀ and dataᵀ ε.
    assert found.own == 50 * (3 * 2 + 3 * 2 + 3 * 2)
    assert found.all == found.own + 50 * (4 * 3 + 4 * 3)
    assert found.largest == 50 * 3


def test_the_largest_array_is_one_that_depends_on_the_path():
    def fn(x, h):
        def body(c, v):
            return c + v, jnp.outer(c, c)  # stacked, 4 of them

        many = jnp.sum(h[:, None, None] * h[None, :, None] * h[None, None, :])
        return lax.scan(body, x, jnp.ones((4, 3))), many

    args = (array(3), array(10))
    assert counted(fn, args, [True, False]).largest == 4 * 9
    assert counted(fn, args, [True, True]).largest == 1000


# --- One after the other, and side by side ---

MATRICES = np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)


def step(x, y, count, h):
    """Per path: x (3,), y (3, 2), and s of no path: a counter and h (3,)."""
    z = jnp.asarray(MATRICES[0]) @ x + h
    y = jax.nn.tanh(jnp.asarray(MATRICES[1]) @ y) * jnp.linalg.norm(z)
    x = lax.cond(count % 2 == 0, jnp.sin, jnp.cos, z) + y @ jnp.ones(2)
    return {"x": x, "y": y, "count": count + 1, "h": 2 * h, "outer": jnp.outer(x, y[:, 0])}


@pytest.mark.parametrize("paths", [1, 3, 8])
def test_in_turn_and_side_by_side_give_the_same(paths, monkeypatch):
    draw = np.random.default_rng(1).standard_normal
    x, y, h = (a.astype(np.float32) for a in (draw((3, paths)), draw((3, 2, paths)), draw(3)))
    shapes = (array(3), array(3, 2), jax.ShapeDtypeStruct((), jnp.int32), array(3))
    over = OverPaths(step, *shapes)
    shared = over.shared(False, False, True, True)
    names = ("count", "h", "outer", "x", "y")
    assert dict(zip(names, shared, strict=True)) == {
        "count": True, "h": True, "outer": False, "x": False, "y": False
    }  # fmt: skip
    found = {}
    for name, bound in (("in turn", 0), ("side by side", 2**60)):
        monkeypatch.setattr(layout, "IN_TURN", bound)
        run = jax.jit(lambda *args: over(paths, *args, shared=shared)).lower(x, y, 3, h)
        assert ("stablehlo.while" in run.as_text()) == (name == "in turn")
        found[name] = run.compile()(x, y, 3, h)
    one, other = found.values()
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, other)
    assert one["count"] == other["count"] == 4
    np.testing.assert_array_equal(one["h"], 2 * h)
    for name in ("x", "y", "outer"):
        assert one[name].shape[-1] == paths
        np.testing.assert_allclose(one[name], other[name], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(one["x"][:, -1], step(x[:, -1], y[..., -1], 3, h)["x"], rtol=1e-5)


# --- A network whose steps multiply much: 3 x 100 weights on 4,000 examples ---

N = 4000


def network(width=100, n=N, micro_batch=N):
    model = eqx.nn.MLP(3, 3, width, 1, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((n, 3)).astype(np.float32)
    return Network(model, cross_entropy, inputs, rng.integers(0, 3, n), micro_batch)


def sgd(problem):
    return OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, GaussianNoise(problem, 0.01))


@pytest.mark.parametrize("width", [40, 100])  # with 40 the loss alone would run side by side
def test_memory_in_turn_is_that_of_the_paths_and_of_one_path_s_activations(width, monkeypatch):
    """A block of 32 paths holds 32 states and the activations of one; side by side of all."""
    problem, paths, key = network(width), 32, jax.random.key(0)
    process = sgd(problem)
    assert plan.step_work(process, problem.x0, process.noise(problem.x0)).in_turn

    def temporary():
        begun = jax.eval_shape(lambda: start(process, problem.x0, key, paths))

        def run(begun):
            return evolve(process, begun, key, 0, 0, np.array([4]), {"loss": problem.loss})

        memory = jax.jit(run).lower(begun).compile().memory_analysis()
        return memory.temp_size_in_bytes / 4

    activations = N * width
    held = temporary()
    assert held < 8 * paths * problem.size + 6 * activations
    if width == 40:
        return
    monkeypatch.setattr(layout, "IN_TURN", 2**60)
    assert temporary() > 0.5 * paths * activations > 2 * held


def test_paths_that_all_are_one_run_once():
    """Without noise nothing differs between paths that start at one point."""
    problem = network(40)
    process = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, FullBatch(problem))
    ensemble = simulate(
        process, problem.x0, steps=2, paths=3, key=jax.random.key(0), records=1,
        observables={"loss": problem.loss},
    )  # fmt: skip
    after = jax.tree.map(lambda x, g: x - 0.1 * g, problem.x0, problem.gradient(problem.x0))
    after = jax.tree.map(lambda x, g: x - 0.1 * g, after, problem.gradient(after))
    np.testing.assert_allclose(ensemble.mean("loss")[-1], problem.loss(after), rtol=1e-5)
    assert not ensemble.variance("loss").any()


def cut(problem, x0, paths, chunk=None, devices=1):
    process, mesh = sgd(problem), paths_mesh(jax.devices()[:devices])
    x0 = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x0)
    return plan.Plan.of(process, x0, np.float32, np.array([0, 8]), paths, chunk, mesh)


@pytest.mark.parametrize("width", [40, 100])  # 283 and 703 parameters
def test_paths_in_turn_are_not_rounded_up_to_whole_vectors(width):
    problem = network(width)
    assert cut(problem, problem.x0, 3).chunk == 3
    assert cut(problem, problem.x0, 3, devices=2).size == 2
    assert list(cut(problem, problem.x0, 7, chunk=3).chunks) == [0, 3, 6]
    assert cut(network(width, n=20), problem.x0, 3).chunk == 16


def test_chunks_of_a_network_hold_its_states_and_blocks_are_short():
    """Work counts: steps of a block are fewer, by what a product takes of a coordinate's time."""
    problem = network()
    many = cut(problem, problem.x0, 1000)
    assert many.size * 2 * problem.size <= plan.CPU_COORDINATES
    process = sgd(problem)
    work = plan.step_work(process, problem.x0, process.noise(problem.x0))
    assert work.all >= work.own >= 3 * N * 100 * 3
    regression = LogisticRegression(np.ones((N, 703)), np.ones(N))
    shared = plan.step_work(sgd(regression), array(703), sgd(regression).noise(array(703)))
    assert shared.own == 0  # all products are with the data, which paths share
    assert shared.all == 3 * N * 703  # one of them of the loss, which an optimizer may ask for
    assert cut(regression, array(703), 3).chunk == 16


def test_chunks_side_by_side_hold_no_more_than_their_activations():
    """40,000 residuals a path, more than its 40 coordinates."""
    n = 40_000
    regression = LogisticRegression(np.ones((n, 40), np.float32), np.ones(n))
    size = cut(regression, array(40), 10**4).size
    assert (size - plan.LANES) * plan.ACTIVATIONS * n <= plan.COORDINATES
    assert size * plan.ACTIVATIONS * n >= plan.COORDINATES


def test_data_stay_shared_in_the_branch_after_a_warm_up():
    """RMSprop's SDE runs in a branch, yet all its products are still with data."""
    problem = LogisticRegression(np.ones((50, 3)), np.ones(50))
    pair = family("rmsprop").pair(GaussianNoise(problem, 0.1), 0.01, 1)
    assert pair.warm_up is not None
    work = plan.step_work(pair, array(3), pair.noise(array(3)))
    assert work.own == 0
    assert work.all >= 4 * 50 * 3
    assert work.largest == 50


def test_blocks_are_shorter_the_more_a_step_multiplies(monkeypatch):
    monkeypatch.setattr(plan, "BLOCK", 2**26)
    problem = network()
    process, mesh = sgd(problem), paths_mesh(jax.devices()[:1])
    x0 = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), problem.x0)
    segments = plan.Plan.of(process, x0, np.float32, np.array([0, 1000]), 4, None, mesh).segments
    work = plan.step_work(process, problem.x0, process.noise(problem.x0))
    steps = 2**26 // (4 * (2 * problem.size + work.all // plan.PRODUCTS))
    assert segments[0].stops[-1] == pytest.approx(steps, abs=2)
