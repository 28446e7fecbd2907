import itertools
import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsde
from jaxsde import InputError, OptimizerProcess, Paired, RandomStart, SDEProcess, simulate
from jaxsde.analysis import sweep
from jaxsde.analysis.sweeps import _chunks
from jaxsde.engine import Draw, Normal
from jaxsde.engine.devices import paths_mesh
from jaxsde.engine.inputs import start_point, struct
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SGD

HESSIAN = np.array([0.5, 1.0, 2.0], np.float32)
X0 = np.array([1.0, -1.0, 0.5], np.float32)
RATES, SCALES = [0.05, 0.1, 0.4], [0.5, 2.0]
RUN = {"steps": 7, "paths": 70, "key": jax.random.key(3), "records": [0, 4, 7]}
SMALL = {"points": 4, "chunk": 32}  # 2 chunks of 3 points, 3 of 32 paths


def chain(learning_rate=0.1, scale=1.0):
    oracle = GaussianNoise(Quadratic(HESSIAN), scale)
    return OptimizerProcess(optax.sgd, {"learning_rate": learning_rate}, oracle)


def pair(learning_rate):
    """The SDE's dt and its coefficients follow η."""
    oracle = GaussianNoise(Quadratic(HESSIAN), 1.0)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": learning_rate}, oracle)
    return Paired(optimizer, SDEProcess(SGD(oracle, learning_rate), learning_rate / 2), 2)


GRID = {"learning_rate": RATES, "scale": SCALES}


@pytest.fixture(scope="module")
def swept():
    return sweep(chain, GRID, X0, **RUN, **SMALL)


def assert_same(point, ensemble, rtol=2e-5):
    """One point's statistics are those of `simulate` there."""
    np.testing.assert_allclose(point["time"], ensemble.time, rtol=1e-6)
    np.testing.assert_array_equal(point["step"], ensemble.step)
    for name in ensemble.names:
        np.testing.assert_array_equal(point[f"{name}.used"], ensemble.used(name))
        for kind in ("mean", "standard_error", "variance"):
            expected = getattr(ensemble, kind)(name)
            np.testing.assert_allclose(point[f"{name}.{kind}"], expected, rtol, atol=1e-6)


def test_every_point_is_a_run_of_simulate(swept):
    assert swept["position.mean"].dims == ("learning_rate", "scale", "step", "position.0")
    for rate in RATES:
        for scale in SCALES:
            point = swept.sel(learning_rate=rate, scale=scale)
            assert_same(point, simulate(chain(rate, scale), X0, **RUN))


def test_all_points_see_the_same_noise():
    """From the minimiser SGD's x is σ times a function of η and the noise alone."""
    grid = {"learning_rate": RATES, "scale": [1.0, 2.0]}
    x = sweep(chain, grid, np.zeros(3, np.float32), **RUN, **SMALL)["position.mean"].values
    assert np.all(x[:, :, 1:] != 0)
    np.testing.assert_array_equal(x[:, 1], 2 * x[:, 0])


def test_chunks_change_nothing_but_rounding(swept):
    again = sweep(chain, GRID, X0, **RUN, points=2, chunk=100)
    for name in swept:
        np.testing.assert_allclose(again[name], swept[name], 2e-5, 1e-6)


def test_compiled_once():
    """Blocks, padding, other values and a second call trace nothing anew."""
    traces = 0

    @chex.assert_max_traces(n=1)
    def inside(x):
        return jnp.sum(x)

    def observed(x):
        nonlocal traces
        traces += 1
        return inside(x)

    def run(scales, **changed):
        return sweep(
            chain, {"scale": scales}, X0, observables={"sum": observed}, **(RUN | changed), **SMALL
        )

    run([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])  # 2 chunks of 4 points, the last one padded
    assert traces == 1
    run([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2], key=jax.random.key(4), paths=90)
    assert traces == 1


def test_a_step_of_time_follows_the_learning_rate(tmp_path):
    found = sweep(pair, {"learning_rate": [0.1, 0.2]}, X0, **RUN, checkpoint=tmp_path / "c.npz")
    for rate in (0.1, 0.2):
        assert_same(found.sel(learning_rate=rate), simulate(pair(rate), X0, **RUN))


def test_paths_that_diverge_are_counted_and_spoil_no_other_point(swept):
    grid = {"learning_rate": [*RATES[:2], 1e9], "scale": SCALES}
    found = sweep(chain, grid, X0, **RUN, **SMALL)
    assert np.all(found["loss.used"][2] == [70, 0, 0])
    assert np.all(np.isnan(found["loss.mean"][2, :, 1:]))
    for name in found:
        np.testing.assert_array_equal(found[name][:2], swept[name][:2])


def test_random_starts_and_precision(x64):
    start = RandomStart(Draw((3,), Normal()), lambda xi: 2 * xi)
    watched = {"x": jaxsde.with_covariance(lambda x: x)}
    found = sweep(chain, {"scale": SCALES}, start, observables=watched, **RUN)
    for i, scale in enumerate(SCALES):
        alone = simulate(chain(scale=scale), start, observables=watched, **RUN)
        assert_same(found.isel(scale=i), alone, 1e-12)
        np.testing.assert_allclose(found["x.covariance"][i], alone.covariance("x"), 1e-11, 1e-13)


def test_points_of_their_own(swept):
    pairs = [(rate, scale) for scale in SCALES for rate in RATES]
    found = sweep(chain, {("learning_rate", "scale"): pairs}, X0, **RUN, **SMALL)
    assert found["loss.mean"].dims == ("learning_rate,scale", "step")
    assert found["scale"].values.tolist() == [0.5] * 3 + [2.0] * 3
    for name in swept:
        along = [swept[name].sel(learning_rate=rate, scale=scale) for rate, scale in pairs]
        np.testing.assert_array_equal(found[name], along)


class Killed(Exception):
    """What stops a sweep."""


@pytest.mark.parametrize("block", [2**28, 4000])  # whole chunks, and several segments each
def test_a_killed_sweep_resumes_with_the_same_numbers(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_chunks, "BLOCK", block)
    monkeypatch.setattr(_chunks.Checkpoint, "due", lambda self: True)
    run = RUN | {"steps": 40, "records": [0, 20, 40]} | SMALL
    whole = sweep(chain, GRID, X0, **run)
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(_chunks, "time", clock)
    file, reports, elapsed = tmp_path / "sweep.npz", [], []

    def progress(now):
        elapsed.append(now.elapsed)
        reports.append(now.done)
        if len(reports) in (2, 5, 6):
            raise Killed

    def resume():
        return sweep(chain, GRID, X0, **run, progress=progress, checkpoint=file)

    for _ in range(3):
        with pytest.raises(Killed):
            resume()
    found = resume()
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])
    assert elapsed[2] > elapsed[0]  # with the time before the interruption
    assert reports[-1] == 6 * 70 * 40
    assert len(reports) == len(set(reports)) + 3  # only what a report interrupted was done again
    done = len(reports)
    resume()
    assert len(reports) == done  # nothing was left to do
    for change in ({"steps": 41}, {"key": jax.random.key(1)}, {"paths": 71}):
        with pytest.raises(InputError, match="another run's"):
            sweep(chain, GRID, X0, **(run | change), checkpoint=file)
    with pytest.raises(InputError, match="grid"):
        sweep(chain, GRID | {"scale": [0.5, 2.5]}, X0, **run, checkpoint=file)
    with pytest.raises(InputError, match="its program"):
        sweep(lambda **point: chain(**point), GRID, X0, observables={"loss": jnp.sum}, **run,
              checkpoint=file)  # fmt: skip


def test_progress_ends_with_all_path_steps():
    seen = []
    sweep(chain, GRID, X0, progress=seen.append, **RUN, **SMALL)
    assert [p.total for p in seen] == [6 * 70 * 7] * 6
    assert np.all(np.diff([p.done for p in seen]) > 0)
    assert seen[-1].done == seen[-1].total
    assert seen[-1].remaining == 0


def test_settings_say_how_it_was_made(swept):
    settings = json.loads(swept.attrs["settings"])
    assert settings["grid"]["scale"] == SCALES * 3
    assert settings["key"] == [0, 3]
    assert settings["points"], settings["chunk"] == (3, 32)
    assert swept.attrs["paths"] == 70


def test_no_values_of_single_paths_are_kept():
    """10³ points must fit: a block's memory is its state, not its 4,096 paths a record."""
    x0, dtype = start_point(X0)
    mesh, records = paths_mesh(None), np.arange(1001)
    sketch = _chunks.Blocks.of(
        chain(), struct(x0, dtype), dtype, 1000, records, 10**4, None, None, mesh
    )
    run, size = _chunks.Chain(chain, x0, None, dtype), sketch.plan.size
    point = {"scale": np.ones(sketch.points, np.float32)}
    words, first, limit = np.zeros(2, np.uint32), np.uint32(0), np.uint32(10**4)

    def block(point):
        def one(point):
            paths = run.begin(point, words, first, size, mesh)
            return run.advance(point, paths, words, first, np.int32(0), records, limit, mesh)[1]

        return jax.vmap(one)(point)

    memory = jax.jit(block).lower(point).compile().memory_analysis()
    state = sketch.points * size * 3 * 4
    assert memory.temp_size_in_bytes < 20 * state
    assert len(sketch) * memory.output_size_in_bytes > 0


def fixed_count(agents):
    return chain(scale=jnp.ones(agents))


def branching(scale):
    return chain(scale=scale if scale > 1 else 1.0)


@pytest.mark.parametrize(
    ("factory", "grid", "message"),
    [
        (chain, {}, "at least one hyperparameter"),
        (chain, [("scale", [1.0])], "must map"),
        (chain, {"scale": []}, "at least one"),
        (chain, {"scale": 1.0}, "one-dimensional"),
        (chain, {"scale": [[1.0, 2.0]]}, "one-dimensional"),
        (chain, {"scale": [[1.0], [2.0, 3.0]]}, "one-dimensional"),
        (chain, {"scale": ["a"]}, "finite numbers"),
        (chain, {"scale": [True]}, "finite numbers"),
        (chain, {"scale": [1.0, np.nan]}, "finite numbers"),
        (chain, {"scale": [1j]}, "finite numbers"),
        (chain, {3: [1.0]}, "must be words"),
        (chain, {"step": [1.0]}, "is taken"),
        (chain, {"scale": [1.0], ("scale", "learning_rate"): [(1.0, 2.0)]}, "is taken"),
        (chain, {("scale", "learning_rate"): [1.0, 2.0]}, "rows of 2"),
        (chain, {"momentum": [0.9]}, "does not take the grid's names momentum"),
        (chain, {"scale": [1.0, -1.0]}, "at scale = -1: scale must be positive"),
        (chain, {"learning_rate": [0.1, 0.0], "scale": [1.0]}, "at learning_rate = 0, scale = 1"),
        (lambda scale: scale, {"scale": [1.0]}, "must return a process, got float at scale = 1"),
        (fixed_count, {"agents": [3]}, "agents sets a shape"),
        (branching, {"scale": [2.0]}, "cannot be swept"),
    ],
)
def test_bad_grids_are_refused_before_anything_runs(factory, grid, message):
    def progress(_):
        raise AssertionError("it ran")

    with pytest.raises(InputError, match=message):
        sweep(factory, grid, X0, **RUN, progress=progress)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"paths": 0},
        {"points": 0},
        {"chunk": 0},
        {"records": [9]},
        {"observables": {}},
    ],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(InputError):
        sweep(chain, {"scale": [1.0]}, X0, **(RUN | change))


def test_double_precision_needs_the_switch():
    with pytest.raises(InputError, match="jax_enable_x64"):
        sweep(chain, {"scale": [1.0]}, X0.astype(np.float64), **RUN)
