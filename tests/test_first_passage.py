import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats

from jaxsde import InputError, OptimizerProcess, Paired, SDEProcess, of_state, simulate
from jaxsde.engine import Draw, Rademacher, checkpoint, evolve, plan, start
from jaxsde.engine.observables import resolve
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.processes import FirstPassage, PairedDraw, Passage, PassageState, Unit
from jaxsde.sdes import SGD

T0, DT, LEVEL = 0.5, 0.25, 3
ETA, SIGMA, H = 0.1, 1.0, np.array([1.0, 2.0])
X0 = np.zeros(2, np.float32)
ORACLE = GaussianNoise(Quadratic(H), SIGMA)
OPTIMIZER = OptimizerProcess(optax.sgd, {"learning_rate": ETA}, ORACLE)


class Walk:
    """S_{k+1} = S_k ± 1, a user's plain class."""

    dt, t0 = DT, T0

    def noise(self, x0):
        return Draw((), Rademacher())

    def init(self, x0, draw):
        return x0

    def step(self, k, state, draw):
        return state + draw

    def position(self, state):
        return state


class Script:
    """x_k is given: the state is k, the same on all paths."""

    dt, t0 = DT, T0

    def __init__(self, *values):
        self.values = np.array(values, np.float32)

    def noise(self, x0):
        return ()

    def init(self, x0, draw):
        return jnp.int32(0)

    def step(self, k, state, draw):
        return state + 1

    def position(self, state):
        return jnp.asarray(self.values)[state]


def below_level(x):
    return x < LEVEL


def in_disk(x):
    return jnp.linalg.norm(x) < 0.4


def walks_law(steps):
    """P(τ <= k) = P(S_k >= b) + P(S_k > b), by reflection; S_k = 2 B - k with B ~ Bin(k, 1/2)."""
    heads = [[math.comb(k, i) * 0.5**k for i in range(k + 1)] for k in range(steps + 1)]
    return np.array(
        [
            sum(p * ((2 * i - k >= LEVEL) + (2 * i - k > LEVEL)) for i, p in enumerate(row))
            for k, row in enumerate(heads)
        ]
    )


def first_outside(inside):
    """By hand: the first k with x_k outside, from `(K, paths)`; K where there is none."""
    return np.where(inside.all(axis=0), len(inside), np.argmin(inside, axis=0))


def check_law(distribution, law, n):
    """Pearson's statistic of the n paths that pass between records; false alarms 1e-5."""
    found, expected = (n * np.diff([0, *P, 1]) for P in (distribution, law))
    assert expected.min() > 20
    assert scipy.stats.chisquare(np.rint(found), expected).pvalue > 1e-5


def test_all_sign_sequences_give_the_walks_exact_law(precision):
    steps = 10
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=steps)))
    process = FirstPassage(Walk(), below_level)
    seen = process.lift(process.observables())

    def run(signs):
        state, values = process.init(jnp.zeros(()), signs[0]), []
        for k in range(steps + 1):
            values.append([seen[name].fn(state) for name in ("passed", "passage_time")])
            state = process.step(k, state, signs[min(k, steps - 1)])
        return jnp.asarray(values)

    values, law = np.asarray(jax.jit(jax.vmap(run))(signs)), walks_law(steps)
    found = values.mean(axis=0)
    assert values.dtype == precision
    np.testing.assert_array_equal(found[:, 0], law)  # multiples of 2⁻¹⁰
    restricted = T0 + DT * np.concatenate([[0], np.cumsum(1 - law[:-1])])  # Σ P(τ > j), j < k
    np.testing.assert_allclose(found[:, 1], restricted, rtol=1e-6)


class Counting(Walk):
    """With observables of its own, of the state too, and settings."""

    def init(self, x0, draw):
        return x0, 0

    def step(self, k, state, draw):
        return state[0] + draw, state[1] + 1

    def position(self, state):
        return state[0]

    def observables(self):
        return {"count": of_state(lambda state: state[1])}

    def settings(self):
        return {"chain": "a walk"}


def test_a_run_has_the_walks_law_and_all_that_it_has_without(key):
    settings = {
        "steps": 40, "paths": 20_000, "key": key, "records": np.arange(3, 41, 4), "chunk": 4096
    }  # fmt: skip
    process = FirstPassage(Counting(), below_level)
    run, alone = (simulate(p, np.float32(0), **settings) for p in (process, Counting()))
    law = walks_law(40)
    check_law(run.mean("passed"), law[3::4], run.paths)
    exact = T0 + DT * np.sum(1 - law[:-2])  # up to the last record, k = 39
    found, error = run.mean("passage_time")[-1], run.standard_error("passage_time")[-1]
    assert abs(found - exact) < 5 * error  # 6e-7
    assert run.diverged("passage_time")[-1] == run.diverged("passed")[-1] == 0
    assert set(run.names) == {*alone.names, "passed", "passage_time"}
    assert set(alone.names) == {"count", "position"}
    for name in alone.names:
        np.testing.assert_array_equal(run.sample[name], alone.sample[name])
        np.testing.assert_array_equal(run.mean(name), alone.mean(name))
    np.testing.assert_array_equal(run.time, alone.time)
    assert run.settings["chain"] == "a walk"
    assert FirstPassage(Walk(), below_level).settings() == {}


def survival(a, s, low, high, steps, nodes=240):
    """P(τ > k | x_0 = 0) of x⁺ = a x + s ξ inside (low, high), by Gauss-Legendre quadrature."""
    y, w = np.polynomial.legendre.leggauss(nodes)
    y, w = (low + high) / 2 + (high - low) / 2 * y, (high - low) / 2 * w
    density, found = scipy.stats.norm.pdf(y, 0, s), [1.0]
    kernel = scipy.stats.norm.pdf(y[:, None] - a * y, 0, s) * w
    for _ in range(steps):
        found.append(w @ density)
        density = kernel @ density
    return np.array(found)


def test_the_quadrature_is_right():
    one, two = survival(0.9, 0.2, -0.3, 0.4, 2)[1:]
    x = scipy.stats.norm(scale=0.2)

    def stays(y):
        return x.cdf(0.4 - 0.9 * y) - x.cdf(-0.3 - 0.9 * y)

    assert one == pytest.approx(stays(0), rel=1e-12)
    inside = scipy.integrate.quad(lambda y: x.pdf(y) * stays(y), -0.3, 0.4)[0]
    assert two == pytest.approx(inside, rel=1e-9)


def test_sgds_exit_from_an_interval_has_its_exact_law(key):
    """x⁺ = (1 - ηh) x - ησ ξ in (-0.3, 0.4), two coordinates of different h, an event each."""
    process = FirstPassage(OPTIMIZER, lambda x: (x > -0.3) & (x < 0.4))
    run = simulate(process, X0, steps=40, paths=20_000, key=key, records=np.arange(5, 41, 5))
    assert run.mean("passed").shape == (8, 2)
    for i, h in enumerate(H):
        law = 1 - survival(1 - ETA * h, ETA * SIGMA, -0.3, 0.4, 40)
        check_law(run.mean("passed")[:, i], law[5::5], run.paths)
        exact = ETA * np.sum(1 - law[:-1])
        found, error = (v("passage_time")[-1, i] for v in (run.mean, run.standard_error))
        assert abs(found - exact) < 5 * error  # 6e-7


BETA = 1.4603545088095868 / math.sqrt(2 * math.pi)  # -ζ(1/2) / √(2π)


def browns_law(b, t):
    """P(max W > b before t) = 2 Φ(-b/√t)."""
    return 2 * scipy.stats.norm.sf(b / np.sqrt(t))


def test_missed_excursions_act_like_a_boundary_further_out():
    """The docstring's claims, for Brownian motion below 1 up to time 1 at dt = 1/n."""
    n = np.array([16, 32, 64, 128])
    watched = np.array([1 - survival(1, m**-0.5, -6, 1, m)[-1] for m in n])
    law, shifted = browns_law(1, 1), browns_law(1 + BETA * n**-0.5, 1)
    error, left = law - watched, np.abs(shifted - watched)
    assert BETA == pytest.approx(0.5826, abs=1e-5)
    np.testing.assert_allclose(left[1:] / left[:-1], 1 / 2, rtol=0.02)  # of order dt
    moved = (watched[1:] - watched[:-1]) / error[:-1]
    limits = ((error * np.sqrt(n), 2 * scipy.stats.norm.pdf(1) * BETA), (moved, 1 - 2**-0.5))
    for found, limit in limits:
        assert found[-1] == pytest.approx(limit, rel=0.05)
        away = np.abs(found - limit)
        np.testing.assert_allclose(away[1:] / away[:-1], 2**-0.5, rtol=0.05)  # of order √dt


def test_an_sdes_exit_has_the_shifted_closed_form(key):
    """dX = -√r σ dW below 1, √r σ = 1, asked at dt = 1/64."""
    sde = SGD(GaussianNoise(Quadratic([0.0]), 2.0), 0.25)
    process = FirstPassage(SDEProcess(sde, 1 / 64), lambda x: x[0] < 1)
    x0, n = np.zeros(1, np.float32), 20_000
    run = simulate(process, x0, steps=64, paths=n, key=key, records=np.array([32, 64]))
    t, found = run.time, run.mean("passed")
    law, shifted = browns_law(1, t), browns_law(1 + BETA / 8, t)
    exact = 1 - survival(1, 1 / 8, -6, 1, 64)[[32, 64]]
    error = np.sqrt(exact * (1 - exact) / n)
    assert np.all(np.abs(shifted - exact) < 0.1 * (law - exact))
    assert np.all(np.abs(found - exact) < 5 * error)  # two scores, each beyond with 6e-7
    assert np.all(found < law - 5 * error)


def test_passages_are_those_of_the_recorded_positions(precision, key):
    """Of six events, an array of booleans."""
    levels = np.array([[0.1, 0.2, 0.4], [0.15, 0.3, 0.6]], np.float32)

    def below(x):
        return jnp.abs(x)[:, None] < levels

    process, x0 = FirstPassage(OPTIMIZER, below), X0.astype(precision)
    run = simulate(process, x0, steps=20, paths=100, key=key, records=np.arange(21))
    x = np.abs(run.sample["position"])
    assert x.dtype == run.sample["passage_time"].dtype == precision
    assert run.sample["passed"].shape == (21, 2, 3, 100)
    k = np.arange(21)[:, None]
    for i, j in np.ndindex(2, 3):
        first = first_outside(x[:, i] < levels[i, j])
        np.testing.assert_array_equal(run.sample["passed"][:, i, j], first <= k)
        t = ETA * np.minimum(first, k)
        np.testing.assert_allclose(run.sample["passage_time"][:, i, j], t, rtol=3e-7)


@pytest.mark.parametrize(
    ("inside", "values", "first"),
    [
        (lambda x: jnp.abs(x) < 1, (0, 0.5, 2, 0, 2, 2), 2),
        (lambda x: jnp.abs(x) < 1, (1, 0, 0, 0, 0, 0), 0),  # outside already
        (lambda x: jnp.abs(x) < 1, (0, 0, 0, 0, 0, 0), None),
        (lambda x: jnp.abs(x) < 1, (0, 0, 0, np.nan, 0, 0), 3),
        (lambda x: jnp.abs(x) < 1, (0, 0, 0, 0, 0, -np.inf), 5),
        (lambda x: ~(jnp.abs(x) <= 1), (3, 2, np.nan, np.inf, 1, 3), 4),  # the first entry
        (lambda x: ~(jnp.abs(x) <= 1), (3, 2, np.nan, np.nan, np.nan, np.nan), None),
        (of_state(lambda k: k != 4), (0, 0, 0, 0, 0, 0), 4),
        (lambda x: True, (0, 0, 0, 0, 0, 0), None),
    ],
)
def test_the_first_time_outside_is_kept(inside, values, first):
    process = FirstPassage(Script(*values), inside)
    state = process.init(None, ())
    for k in range(6):
        now = k if first is None else min(k, first)
        seen = [of.fn(state) for of in process.lift(process.observables()).values()]
        np.testing.assert_array_equal(seen, [first is not None and k >= first, T0 + DT * now])
        state = process.step(k, state, ())


def shared(process, x0):
    return eqx.filter_eval_shape(start, process, x0, jax.random.key(0), 16).shared


def test_what_is_the_same_on_all_paths_is_shared(key):
    process = FirstPassage(Script(0, 0.5, 3, 0), below_level)
    assert shared(process, np.float32(0)) == (True, True, True)
    run = simulate(process, np.float32(0), steps=3, paths=3, key=key)
    np.testing.assert_array_equal(run.sample["passed"], [[0] * 3, [0] * 3, [1] * 3, [1] * 3])


def test_what_the_optimizer_keeps_shared_stays_shared():
    adam = OptimizerProcess(optax.adam, {"learning_rate": ETA}, ORACLE)
    process = FirstPassage(adam, in_disk)
    before = shared(adam, X0)
    assert any(before)  # Adam's count
    assert shared(process, X0) == (*before, False, False)
    assert process.settings() == adam.settings()
    assert (process.dt, process.t0) == (adam.dt, adam.t0)


def pair(substeps=3):
    return Paired(OPTIMIZER, SDEProcess(SGD(ORACLE, ETA), ETA / substeps), substeps)


def states(process):
    """A pair's at steps 0, ..., 12, on one path."""
    rng = np.random.default_rng(0)
    step = jax.jit(lambda k, state, draw: process.step(k, state, draw))

    def draw():
        return PairedDraw(tuple(Unit(jnp.float32(xi), []) for xi in rng.normal(size=(3, 2))), None)

    state = process.init(jnp.asarray(X0), draw())
    yield state
    for k in range(12):
        state = step(k, state, draw())
        yield state


def test_both_sides_of_a_pair_have_their_own_passage():
    levels = np.linspace(0, 0.2, 401, dtype=np.float32)  # as many events
    process = FirstPassage(pair(), lambda x: jnp.max(jnp.abs(x)) < levels)
    seen = resolve(process, None, X0)
    sides, names = (
        ("optimizer", "sde", "difference"),
        ("loss", "position", "passed", "passage_time"),
    )
    assert set(seen) == {f"{side}.{name}" for side in sides for name in names}
    first, apart = dict.fromkeys(sides[:2], np.full(401, 99)), 0
    for k, state in enumerate(states(process)):
        found = {name: np.asarray(of.fn(state)) for name, of in seen.items() if "pass" in name}
        for side in sides[:2]:
            outside = np.max(np.abs(getattr(process.position(state), side))) >= levels
            first[side] = np.where(outside, np.minimum(first[side], k), first[side])
            np.testing.assert_array_equal(found[f"{side}.passed"], first[side] <= k)
            time = ETA * np.minimum(first[side], k)
            np.testing.assert_allclose(found[f"{side}.passage_time"], time, rtol=3e-7)
        for name in names[2:]:
            difference = 1.0 * found[f"optimizer.{name}"] - found[f"sde.{name}"]
            np.testing.assert_allclose(found[f"difference.{name}"], difference, rtol=1e-6)
            apart += np.any(difference != 0)
    assert max(first["sde"]) < 99
    assert apart


def test_an_event_of_both_sides_together_reads_the_state():
    process = FirstPassage(pair(), of_state(lambda s: jnp.abs(s.optimizer.x - s.sde.X) < 0.005))
    seen = resolve(process, None, X0)
    assert {name for name in seen if "pass" in name} == {"passed", "passage_time"}
    first = np.full(2, 99)
    for k, state in enumerate(states(process)):
        x = process.position(state)
        first = np.where(np.abs(x.optimizer - x.sde) < 0.005, first, np.minimum(first, k))
        np.testing.assert_array_equal(seen["passed"].fn(state), first <= k)
        time = ETA * np.minimum(first, k)
        np.testing.assert_allclose(seen["passage_time"].fn(state), time, rtol=3e-7)
    assert np.all((first > 0) & (first < 99))


def test_a_time_is_that_of_its_step_in_long_runs():
    process, k = FirstPassage(Walk(), below_level), 10_000_000
    before = PassageState(jnp.float32(0), Passage(jnp.array(False), jnp.int32(k)))
    state = process.step(jnp.int32(k), before, jnp.float32(5))
    assert bool(state.passage.passed)
    assert int(state.passage.step) == k + 1
    assert process.init(jnp.float32(0), None).passage.step.dtype == jnp.int32
    seen = process.lift(process.observables())["passage_time"].fn(state)
    assert float(seen) == pytest.approx(T0 + DT * (k + 1), rel=1.2e-7)


class Disk(eqx.Module):
    radius: jax.Array

    def __call__(self, x):
        return jnp.linalg.norm(x) < self.radius


def test_a_radius_and_a_rate_are_swept_by_vmap(key):
    def passed(radius, rate):
        optimizer = OptimizerProcess(optax.sgd, {"learning_rate": rate}, ORACLE)
        process = FirstPassage(optimizer, Disk(radius))
        paths = start(process, X0, key, 256)
        records = evolve(process, paths, key, 0, 0, jnp.array([10]))[1]
        return [records[name].moments.mean[0] for name in ("passed", "passage_time")]

    radius, rate = np.float32([0.4, 0.4, 0.5, 0, 9]), np.float32([0.1, 0.2, 0.1, 0.1, 0.2])
    found, time = jax.jit(jax.vmap(passed))(radius, rate)
    assert 1 > found[1] > found[0] > found[2] > 0
    np.testing.assert_array_equal(found[3:], [1, 0])
    np.testing.assert_allclose(time[3:], [0, 10 * rate[4]], rtol=1e-6)
    assert 0 < time[0] < time[2] < 10 * rate[0]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, (a.moments, a.sample), (b.moments, b.sample))


class Stop(Exception):
    """The interruption."""


def test_chunks_and_interruptions_do_not_matter(tmp_path, key, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK", 10 * 4 * 16)
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    process, x0 = FirstPassage(Walk(), below_level), np.float32(0)
    settings = {"steps": 40, "paths": 70, "key": key, "records": [0, 7, 20, 21, 40], "chunk": 32}
    whole, blocks = simulate(process, x0, **settings), []

    def stop(progress):
        blocks.append(progress)
        if len(blocks) == 4:  # within a chunk
            raise Stop

    with pytest.raises(Stop):
        simulate(process, x0, **settings, checkpoint=tmp_path / "run", progress=stop)
    assert 0 < blocks[-1].done < blocks[-1].total
    same(simulate(process, x0, **settings, checkpoint=tmp_path / "run"), whole)
    one = simulate(process, x0, **(settings | {"chunk": 128}))
    for name in ("passed", "passage_time"):
        np.testing.assert_array_equal(one.sample[name], whole.sample[name])
        np.testing.assert_allclose(one.mean(name), whole.mean(name), rtol=1e-6)


def test_bad_input_is_refused(key):
    for wrong in (None, "x < 1"):
        with pytest.raises(InputError, match="inside must be a function"):
            FirstPassage(OPTIMIZER, wrong)
    with pytest.raises(InputError, match="Quadratic is no process"):
        FirstPassage(Quadratic(H), in_disk)
    for wrong in (jnp.linalg.norm, lambda x: (x[0] < 1, x[1] < 1), lambda x: None):
        with pytest.raises(InputError, match="inside must return a boolean"):
            simulate(FirstPassage(OPTIMIZER, wrong), X0, steps=1, paths=1, key=key)
    process = FirstPassage(OPTIMIZER, in_disk)
    for wrapped, watched in (
        (process, {"passed": in_disk}),
        (FirstPassage(process, in_disk), None),
    ):
        with pytest.raises(InputError, match="the name 'passed' is FirstPassage's own"):
            simulate(wrapped, X0, steps=1, paths=1, key=key, observables=watched)
