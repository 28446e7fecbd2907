import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, RandomStart, of_state, simulate
from jaxsde.engine import Draw, Normal
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic

PROCESS = OptimizerProcess(
    optax.sgd, {"learning_rate": 0.1}, GaussianNoise(Quadratic([1.0, 2.0]), 1.0)
)
X0 = np.zeros(2, np.float32)


def run(process=PROCESS, x0=X0, **changes):
    defaults = {"steps": 4, "paths": 8, "key": jax.random.key(0), "records": [4]}
    return simulate(process, x0, **(defaults | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": 2**31}, "counters hold"),
        ({"paths": 0}, "paths must be a whole number of at least 1, got 0"),
        ({"paths": -3}, "paths must be a whole number"),
        ({"paths": "many"}, "paths must be a whole number"),
        ({"paths": 2**31 + 1}, "counters hold"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"chunk": 1.5}, "chunk must be a whole number"),
        ({"records": 0}, "records must be a whole number of at least 1, got 0"),
        ({"records": 2.5}, "records must be a whole number"),
        ({"records": []}, "ascending steps in"),
        ({"records": [2, 1]}, "ascending steps in"),
        ({"records": [1, 1]}, "ascending steps in"),
        ({"records": [-1, 2]}, "ascending steps in"),
        ({"records": [1, 5]}, r"ascending steps in \[0, 4\]"),
        ({"records": [0.5, 1.0]}, "ascending steps in"),
        ({"records": [[1, 2]]}, "ascending steps in"),
        ({"key": jax.random.key(0, impl="rbg")}, "threefry key"),
        ({"key": 3}, "one JAX key"),
        ({"x0": np.zeros(2)}, "jax_enable_x64"),
        ({"x0": np.array([0, np.nan], np.float32)}, "x0 must be finite"),
        ({"x0": jnp.array([np.inf, 0])}, "x0 must be finite"),
        ({"x0": ()}, "x0 must hold arrays"),
        ({"x0": (X0, X0.astype(jnp.bfloat16))}, "one floating dtype"),
        ({"process": optax.sgd(0.1)}, "is no process: it needs init, step"),
        ({"process": lambda x: x}, "is no process"),
        ({"observables": {}}, "at least one function"),
        ({"observables": {"a/b": jnp.sum}}, "without '/'"),
        ({"observables": {"": jnp.sum}}, "must be a word"),
        ({"observables": {3: jnp.sum}}, "must be a word"),
        ({"observables": {"two": lambda x: (x, x)}}, "'two' must return one array"),
        ({"observables": {"none": lambda x: None}}, "'none' must return one array"),
        ({"observables": {"z": lambda x: 1j * x}}, "'z' must return real numbers"),
        ({"observables": {"empty": lambda x: x[:0]}}, "'empty' must return real numbers"),
        ({"observables": {"s": of_state(lambda s: s)}}, "'s' must return one array"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_get_one_line_before_anything_runs(changes, message):
    with pytest.raises(InputError, match=message):
        run(**changes)


class Chain(eqx.Module):
    """A chain whose step is given, to make bad ones."""

    fn: object = eqx.field(static=True)
    dt: float = 1.0
    t0: float = 0.0

    def noise(self, x0):
        return Draw(x0.shape, Normal())

    def init(self, x0, draw):
        return {"x": x0}

    def step(self, k, state, draw):
        return {"x": self.fn(state["x"])}

    def position(self, state):
        return state["x"]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x[:1], r"state\['x'\] from float32\[2\] into float32\[1\]"),
        (lambda x: x[None], r"from float32\[2\] into float32\[1, 2\]"),
        (lambda x: x.astype(int), r"from float32\[2\] into int32\[2\]"),
        (lambda x: x.astype(jnp.float16), r"from float32\[2\] into float16\[2\]"),
    ],
    ids=["shape", "rank", "integer", "precision"],
)
def test_a_step_that_changes_the_state_is_named(fn, message):
    with pytest.raises(InputError, match=message):
        run(Chain(fn))


def test_a_random_start_of_wrong_precision_is_refused_like_a_point():
    start = RandomStart(Draw((2,), Normal()), lambda z: z.astype(jnp.float16))
    with pytest.raises(InputError, match="float"):
        run(Chain(lambda x: x.astype(jnp.float32)), start)


def test_float64_runs_once_x64_is_on(x64):
    ensemble = run(x0=np.zeros(2))
    assert ensemble.sample["position"].dtype == np.float64


def test_integers_start_a_run_in_the_default_precision():
    ensemble = run(x0=np.array([1, 2]))
    assert ensemble.sample["position"].dtype == np.float32


def test_an_unknown_observable_is_answered_with_the_nearest():
    ensemble = run()
    with pytest.raises(InputError, match=r"unknown observable 'los'; did you mean loss\?"):
        ensemble.mean("los")
    with pytest.raises(InputError, match="known: loss, position"):
        ensemble.quantile("?", 0.5)
