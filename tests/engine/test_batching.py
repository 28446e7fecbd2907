import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import OptimizerProcess, RandomStart, SDEProcess
from jaxsde.engine import Draw, Normal, StudentT, evolve, start
from jaxsde.engine.batching import OverPaths
from jaxsde.engine.observables import Observable, position
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic, Rosenbrock
from jaxsde.sdes import SignSGD

MATRIX = np.array([[2.0, -1.0, 0.5], [0.25, 1.0, 3.0], [-2.0, 0.0, 1.5]])


@jax.custom_jvp
def cube(x):
    return x**3


@cube.defjvp
def _(primals, tangents):
    return cube(*primals), 3 * primals[0] ** 2 * tangents[0]


def count_down(x):
    """A loop of a different length on every path."""
    return jax.lax.while_loop(lambda c: c[0] > 0.1, lambda c: (c[0] / 2, c[1] + 1), (x[0] ** 2, 0))


FUNCTIONS = {  # of x (3,), y (3, 2), s (), all different on every path, and h (3,), equal on all
    "vector over its norm": lambda x, y, s, h: x / jnp.linalg.norm(x),
    "hyperparameter times vector plus scalar": lambda x, y, s, h: h * x + s,
    "where": lambda x, y, s, h: jnp.where(x > h, x, s),
    "where on a scalar": lambda x, y, s, h: jnp.where(s > 0, x, h),
    "matrix times vector": lambda x, y, s, h: jnp.asarray(MATRIX, x.dtype) @ x,
    "vector times own matrix": lambda x, y, s, h: x @ y,
    "outer product": lambda x, y, s, h: x[:, None] * y[:, 0][None, :] + h[None, :],
    "concatenate": lambda x, y, s, h: jnp.concatenate([x, h, s[None], y[0]]),
    "stack": lambda x, y, s, h: jnp.stack([x, h, y[:, 1]], axis=1),
    "reshape and transpose": lambda x, y, s, h: y.reshape(2, 3).T * h[:, None],
    "scan": lambda x, y, s, h: jax.lax.scan(lambda c, v: (c * v + s, c), x[0], y[:, 0] + h),
    "cond": lambda x, y, s, h: jax.lax.cond(s > 0, jnp.sin, jnp.cos, x),
    "while": lambda x, y, s, h: count_down(x),
    "gather": lambda x, y, s, h: x[(s > 0).astype(int)] + y[jnp.argmax(x)],
    "scatter": lambda x, y, s, h: jnp.asarray(h).at[jnp.argmin(x)].set(s),
    "gradient of softplus and relu": lambda x, y, s, h: jax.grad(
        lambda x: jnp.sum(jax.nn.softplus(x) * jax.nn.relu(x + h))
    )(x),
    "gradient of a custom rule": lambda x, y, s, h: jax.grad(lambda x: cube(x).sum())(x),
    "sort": lambda x, y, s, h: (jnp.sort(x), jnp.argsort(y[:, 0])),
    "cumulative sum and maximum": lambda x, y, s, h: (jnp.cumsum(x), jnp.max(y, axis=0)),
    "integers and booleans": lambda x, y, s, h: (jnp.sign(x).astype(int), x > s, jnp.any(x > h)),
    "cholesky": lambda x, y, s, h: jnp.linalg.cholesky(
        x[:, None] * x[None, :] + 3 * jnp.eye(3, dtype=x.dtype)
    ),
    "constants": lambda x, y, s, h: (h, 2.0 * h, jnp.arange(3), s),
    "softmax": lambda x, y, s, h: jax.nn.softmax(x * h),
    "sum that keeps its axis": lambda x, y, s, h: y - y.mean(axis=0, keepdims=True),
    "matrix along a new axis": lambda x, y, s, h: jnp.broadcast_to(y[:, None, :], (3, 4, 2)),
    "clip": lambda x, y, s, h: jnp.clip(x, -0.5, jnp.abs(s)),
    "small matrices, from both sides": lambda x, y, s, h: (
        (h[:, None] - 2 * h[None, :]) @ x,
        x @ (h[:, None] - 2 * h[None, :]),
        (h[:, None] - jnp.ones((1, 3))) @ y,
    ),
    "a matrix that is not small": lambda x, y, s, h: (
        jnp.arange(12.0).reshape(2, 6) @ jnp.concatenate([x, h * x])
    ),
    "scalar power": lambda x, y, s, h: jnp.abs(x) ** s + h ** jnp.abs(s),
}
PATHS = 7


@pytest.mark.parametrize("name", FUNCTIONS)
def test_over_paths_is_vmap(name, x64):
    fn = FUNCTIONS[name]
    draw = np.random.default_rng(1).standard_normal
    x, y, s, h = draw((3, PATHS)), draw((3, 2, PATHS)), draw(PATHS), draw(3)
    shapes = [jax.ShapeDtypeStruct(a, jnp.float64) for a in ((3,), (3, 2), (), (3,))]

    @jax.jit
    def both(*args):
        known = jax.vmap(fn, in_axes=(-1, -1, -1, None), out_axes=-1)(*args)
        return known, OverPaths(fn, *shapes)(PATHS, *args)

    known, found = both(x, y, s, h)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14), found, known
    )
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, known)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, known)


def test_lapack_takes_one_path_at_a_time_on_cpu():
    """Its batched kernels wait for threads that, with several devices, wait for it."""
    over = OverPaths(
        lambda x: jnp.linalg.eigh(x[:, None] * x[None, :])[0],
        jax.ShapeDtypeStruct((3,), jnp.float32),
    )
    lowered = jax.jit(lambda x: over(PATHS, x)).lower(np.ones((3, PATHS), np.float32)).as_text()
    calls = [line for line in lowered.splitlines() if "lapack" in line]
    assert calls
    assert not [line for line in calls if f"tensor<{PATHS}x" in line]


def test_outputs_that_depend_on_no_path_are_found():
    def fn(x, h):
        both = jax.lax.scan(lambda c, _: ((c[0] + h, c[1] * x), None), (h, x), length=3)[0]
        return both, h**2, jnp.where(x > 0, h, h), jax.lax.cond(h > 0, lambda: x, lambda: -x)

    over = OverPaths(fn, *[jax.ShapeDtypeStruct((), jnp.float32)] * 2)
    assert over.shared(False, True) == (True, False, True, False, False)
    assert over.shared(True, True) == (True,) * 5
    assert over.shared(False, False) == (False,) * 5


# --- Layout: in the compiled loop every array of the paths has them on its last, fastest axis ---

SIZE = 1009  # no other dimension has this size
ARRAY = re.compile(r"\b[a-z]+\d+\[([\d,]+)\]\{([\d,]+)")


def paths_off_the_last_axis(compiled):
    """The arrays in a compiled function whose last and fastest axis is not the paths'."""
    text = compiled.as_text()
    wrong = {"transpose"} & set(re.findall(r"(\w+)\(", text))
    for dimensions, layout in set(ARRAY.findall(text)):
        sizes, order = dimensions.split(","), [int(axis) for axis in layout.split(",")]
        last = sizes[-1] == str(SIZE) and order == list(reversed(range(len(sizes))))
        if str(SIZE) in sizes and not last:
            wrong.add(f"[{dimensions}]{{{layout}}}")
    return wrong


class NormScaled(eqx.Module):
    """x - η x h / |x| + ξ: a norm times a vector, and a hyperparameter."""

    h: jax.Array
    dt: float = eqx.field(static=True, default=0.1)
    t0: float = eqx.field(static=True, default=0.0)

    def noise(self, x0):
        return Draw(x0.shape, Normal())

    def init(self, x0, draw):
        return x0

    def step(self, k, x, draw):
        return x - self.dt * x * self.h / jnp.linalg.norm(x) + draw

    def position(self, x):
        return x


D = 10
PROBLEM = Quadratic(np.linspace(0.5, 2, D))
LAYOUTS = {
    "sgd": OptimizerProcess(
        optax.sgd, {"learning_rate": 0.1}, GaussianNoise(PROBLEM, np.linspace(1, 2, D))
    ),
    "sign_sgd": OptimizerProcess(
        optax.sign_sgd, {"learning_rate": 0.1}, StudentTNoise(PROBLEM, 0.5, 1.5)
    ),
    "SignSGD's SDE": SDEProcess(SignSGD(GaussianNoise(PROBLEM, 1.0), 0.1), 0.1),
    "norm-scaled": NormScaled(np.linspace(0.5, 2, D, dtype=np.float32)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_compiled_loop_keeps_paths_last(name):
    process, key = LAYOUTS[name], jax.random.key(0)
    paths = jax.eval_shape(lambda: start(process, jnp.ones(D), key, SIZE))

    def run(paths, records):
        watched = {"position": Observable(position)}
        return evolve(process, paths, key, 0, 0, records, watched)

    records = jax.ShapeDtypeStruct((2,), jnp.int32)
    compiled = jax.jit(run).lower(paths, records).compile()
    assert f"f32[{D},{SIZE}]" in compiled.as_text()
    assert paths_off_the_last_axis(compiled) == set()


def test_the_layout_check_sees_paths_that_move_to_the_front():
    def run(x):
        return jax.lax.fori_loop(0, 9, lambda k, x: jnp.cumsum(x.T, axis=1).T, x)

    x = jax.ShapeDtypeStruct((D, SIZE), jnp.float32)
    assert paths_off_the_last_axis(jax.jit(run).lower(x).compile())


# --- Sharing: which leaves of an optimizer's state differ between paths, by running two paths ---

OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "adamw with a schedule": optax.adamw(optax.linear_schedule(0.1, 0.01, 10)),
    "prodigy": optax.contrib.prodigy(),
    "dog": optax.contrib.dog(),
    "apply_if_finite": optax.apply_if_finite(optax.sgd(optax.linear_schedule(0.1, 0, 9)), 3),
    "reduce_on_plateau": optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=2, cooldown=2, accumulation_size=2)
    ),
    "MultiSteps": optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation(),
}
RANK_IS_WRONG = {"prodigy", "dog", "apply_if_finite", "reduce_on_plateau"}


def leaves_equal_on_two_paths(process, x0):
    """By running: which state leaves never differ between two paths with different noise."""
    step, draw = (
        jax.jit(lambda k, s, d: process.step(k, s, d)),
        np.random.default_rng(2).standard_normal,
    )
    states = [process.init(x0, None) for _ in range(2)]
    equal = np.full(len(jax.tree.leaves(states[0])), True)
    for k in range(40):
        # One path in turn meets an infinite gradient, which apply_if_finite counts.
        draws = [draw(x0.shape).astype(np.float32) for _ in states]
        if process.optimizer is OPTIMIZERS["apply_if_finite"] and k % 5 == 0:
            draws[k % 2][0] = math.inf
        states = [step(k, state, xi) for state, xi in zip(states, draws, strict=True)]
        pairs = zip(*map(jax.tree.leaves, states), strict=True)
        equal &= [np.array_equal(a, b, equal_nan=True) for a, b in pairs]
    return tuple(equal.tolist())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_shared_is_what_no_path_changes(name, key):
    oracle = GaussianNoise(Quadratic([1.0, 2.0, 0.5]), 1.0)
    process, x0 = OptimizerProcess(OPTIMIZERS[name], oracle, 0.1), jnp.array([1.0, -1.0, 2.0])
    truth = leaves_equal_on_two_paths(process, x0)
    paths = start(process, x0, key, 4)
    assert paths.shared == truth
    by_rank = tuple(leaf.ndim == 0 for leaf in jax.tree.leaves(process.init(x0, None)))
    assert (by_rank != truth) == (name in RANK_IS_WRONG)


def test_a_random_start_is_not_shared(key):
    oracle = GaussianNoise(Quadratic([1.0, 2.0, 0.5]), 1.0)
    process = OptimizerProcess(OPTIMIZERS["dog"], oracle, 0.1)
    fixed = start(process, jnp.ones(3), key, 4)
    spread = start(process, RandomStart(Draw((3,), StudentT(3.0)), jnp.tanh), key, 4)
    assert fixed.state.inner[1].init_params.shape == (3,)
    assert spread.state.inner[1].init_params.shape == (3, 4)
    np.testing.assert_array_equal(spread.state.inner[1].init_params, spread.state.x)


class Forgets(NormScaled):
    """Its memory starts as x0 and is the same number on all paths after a step."""

    def init(self, x0, draw):
        return {"x": x0, "memory": x0[0]}

    def step(self, k, state, draw):
        return {"x": state["x"] + draw, "memory": jnp.asarray(k, jnp.float32)}


def test_what_differs_at_the_start_alone_is_not_shared(key):
    fixed = start(Forgets(1.0), jnp.ones(2), key, 4)
    assert fixed.shared == (True, False)
    assert fixed.state["memory"].shape == ()
    spread = start(Forgets(1.0), RandomStart(Draw((2,), Normal()), lambda z: z), key, 4)
    assert spread.shared == (False, False)
    np.testing.assert_array_equal(spread.state["memory"], spread.state["x"][0])
    assert np.unique(spread.state["memory"]).size == 4


def test_a_users_debug_print_is_no_obstacle(capfd):
    def fn(x):
        jax.debug.print("at {x}", x=x[0])
        return 2 * x

    over = OverPaths(fn, jax.ShapeDtypeStruct((2,), np.float32))
    np.testing.assert_array_equal(over(3, np.ones((2, 3), np.float32)), np.full((2, 3), 2.0))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("at 1.0") == 3


def test_differences_of_neighbours_are_padded_with_paths_last():
    gradient = Rosenbrock(5.0).gradient
    x = np.random.default_rng(4).standard_normal((5, 3)).astype(np.float32)
    over = OverPaths(gradient, jax.ShapeDtypeStruct((5,), np.float32))
    np.testing.assert_allclose(over(3, x), jax.vmap(gradient, -1, -1)(x), rtol=1e-6)
