import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import InputError, OptimizerProcess, Paired, SDEProcess, compare, simulate
from jaxsde.analysis.compare import estimates
from jaxsde.engine import Ensemble, Moments
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import DoubleWell, Quadratic
from jaxsde.sdes import SGD, SignSGD

PROBLEM = Quadratic([1.0, 3.0])
ORACLE = GaussianNoise(PROBLEM, 0.5)
ETA = 0.1
X0 = np.ones(2, np.float32)


def pair(substeps, oracle=ORACLE, eta=ETA):
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle)
    return Paired(optimizer, SDEProcess(SGD(oracle, eta), eta / substeps), substeps)


def ensemble(values, key, **settings):
    """An ensemble of given values `(T, paths)`."""
    paths = values.shape[-1]
    moments = Moments(np.full(len(values), paths), values.mean(-1), values.var(-1, ddof=0) * paths)
    metadata = json.dumps({"key": key, "dtype": "float64"} | settings)
    time = np.arange(len(values), dtype=float)
    return Ensemble(time, time.astype(int), {"loss": moments}, {"loss": values}, paths, metadata)


def test_the_band_is_sidaks_over_all_times_and_holds():
    """400 pairs without a difference; at most 5 % may show one. P(more than 38 | 5 %) < 1e-4."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(400):
        first, second = (ensemble(rng.normal(size=(20, 50)), [0, i]) for i in range(2))
        found = compare(first, second).differences["loss"]
        alarms += found.shown
    assert alarms <= 38
    assert alarms >= 6  # independent times make Šidák exact; P(fewer than 6 | 5 %) < 5e-4
    critical = (found.upper - found.value) / found.standard_error
    level = 1 - 2 * scipy.stats.t.sf(critical, 49)
    np.testing.assert_allclose(level**20, 0.95, rtol=1e-12)


def test_a_difference_that_is_there_is_found_where_it_is():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(6, 4000))
    shifted = rng.normal(size=(6, 4000)) + np.array([0, 0, 0, 0.5, 0, 0])[:, None]
    found = compare(ensemble(values, [0, 0]), ensemble(shifted, [0, 1]))
    assert found.differences["loss"].largest.at == (3,)
    assert found.differences["loss"].value[3] == pytest.approx(-0.5, abs=0.1)
    assert "the two differ (4,000 paths" in found.verdict
    assert "at t = 3" in found.verdict


def test_no_difference_is_reported_with_what_it_could_hide():
    rng = np.random.default_rng(9)
    first, second = (ensemble(rng.normal(1, 1, (6, 4000)), [0, i]) for i in range(2))
    found = compare(first, second)
    bound, at = found.differences["loss"].resolution
    band = found.differences["loss"]
    assert bound == max(np.abs(band.lower).max(), np.abs(band.upper).max())
    assert "no difference shown (4,000 paths, 95% confidence over all times)" in found.verdict
    assert f"at most {bound:.2g}" in found.verdict
    assert f"t = {at[0]:g}" in found.verdict


def test_pairing_shrinks_the_error_and_agrees_with_independent_runs(key):
    keys = jax.random.split(key, 3)
    settings = {"steps": 40, "paths": 4000, "records": 4}
    paired = compare(simulate(pair(4), X0, key=keys[0], **settings))
    optimizer = simulate(pair(4).optimizer, X0, key=keys[1], **settings)
    sde = simulate(pair(4).sde, X0, key=keys[2], **(settings | {"steps": 160}))
    apart = compare(optimizer, sde)
    a, b = paired.differences["loss"], apart.differences["loss"]
    assert np.all(a.standard_error[1:] * 5 < b.standard_error[1:])
    # 4 normal statistics: a false alarm has probability below 3e-4.
    assert np.all(
        np.abs(a.value - b.value)[1:] < 4 * np.hypot(a.standard_error, b.standard_error)[1:]
    )
    assert paired.integrator.startswith("integrator: EulerMaruyama at dt = 0.025 ")
    assert not paired.identity
    assert not apart.identity


def test_the_same_chain_is_an_identity_paired_or_not(key):
    other = jax.random.key(5)
    paired = simulate(pair(1), X0, steps=20, paths=500, key=key, records=4)
    assert compare(paired).identity
    assert compare(paired).verdict.startswith("identity")
    optimizer = simulate(pair(1).optimizer, X0, steps=20, paths=500, key=key, records=4)
    sde = simulate(pair(1).sde, X0, steps=20, paths=500, key=other, records=4)
    assert compare(optimizer, sde).identity
    unnamed = OptimizerProcess(optax.sgd(ETA), ORACLE, ETA)
    ours = Paired(unnamed, SDEProcess(SGD(ORACLE, ETA), ETA), 1)
    assert compare(simulate(ours, X0, steps=20, paths=500, key=key, records=4)).identity


def test_a_stretch_without_noise_is_no_identity(key):
    """Far out SignSGD and its SDE both move by exactly η a step."""
    oracle = GaussianNoise(PROBLEM, 0.01)
    for substeps in (1, 2):
        optimizer = OptimizerProcess(optax.sign_sgd, {"learning_rate": 0.01}, oracle)
        sde = SDEProcess(SignSGD(oracle, 0.01), 0.01 / substeps)
        run = simulate(
            Paired(optimizer, sde, substeps), X0, steps=20, paths=300, key=key, records=4
        )
        assert not compare(run).identity
        assert not compare(run).differences["loss"].shown


def test_a_difference_without_noise_is_shown_beyond_rounding_only():
    flat = np.ones((4, 100))
    settings = {"dtype": "float32"}
    for value, shown in ((1 + 1e-7, False), (1.001, True)):
        first, second = (
            ensemble(flat, [0, 0], **settings),
            ensemble(value * flat, [0, 1], **settings),
        )
        assert compare(first, second).differences["loss"].shown == shown


def test_large_problems_with_other_entries_are_no_identity(key):
    def run(hessian, seed, side):
        oracle = GaussianNoise(Quadratic(hessian), 0.1)
        process = getattr(pair(1, oracle), side)
        return simulate(
            process, np.ones(1500, np.float32), steps=2, paths=32, key=jax.random.key(seed),
            records=1, observables={"loss": oracle.problem.loss},
        )  # fmt: skip

    hessian, other = np.ones(1500), np.ones(1500)
    other[700] = 2
    assert compare(run(hessian, 0, "optimizer"), run(hessian, 1, "sde")).identity
    assert not compare(run(hessian, 0, "optimizer"), run(other, 1, "sde")).identity


def test_survivors_are_named(key):
    oracle = GaussianNoise(DoubleWell(), 1.0)
    run = simulate(pair(2, oracle, 0.4), X0, steps=60, paths=500, key=key, records=4)
    assert 0 < run.used("difference.loss")[-1] < 500
    assert "Conditional on survival" in compare(run).verdict


def test_infinite_variance_gets_a_verdict_on_medians():
    rng = np.random.default_rng(10)
    for shift, words in ((0, "No difference of the medians shown"), (0.5, "The medians differ")):
        values = [rng.standard_cauchy(size=(6, 4000)) for _ in range(2)]
        values[0][3] += shift
        compared = compare(*(ensemble(v, [0, i]) for i, v in enumerate(values)))
        found, verdict = compared.differences["loss"], compared.verdict
        assert (found.statistic, found.paths) == ("median", 4000)
        median = np.median(values, axis=-1)
        np.testing.assert_allclose(found.first, median[0], rtol=1e-12)
        np.testing.assert_allclose(found.value, median[0] - median[1], rtol=1e-12)
        # Cauchy's medians: √2 π/2 / √n, known from one sample within a tenth.
        np.testing.assert_allclose(found.standard_error, np.pi / np.sqrt(2 * 4000), rtol=0.5)
        share = f"One path in the sample carries {found.heaviest:.0%} of the variance"
        assert f"no verdict on means. {share}" in verdict
        assert f"{words} (4,000 paths" in verdict
        assert "mean)" not in verdict
    assert "Clearest at t = 3, by 0.5" in verdict


def pair_of(optimizer, sde, difference=None):
    """A paired ensemble of given values `(T, paths)`, some of them nan."""
    values = {"optimizer.loss": optimizer, "sde.loss": sde}
    values["difference.loss"] = optimizer - sde if difference is None else difference
    parts = {name: ensemble(np.nan_to_num(v), [0, 0], substeps=2) for name, v in values.items()}
    one = parts["sde.loss"]
    moments = {name: part.moments["loss"] for name, part in parts.items()}
    return Ensemble(one.time, one.step, moments, values, one.paths, one.metadata)


@pytest.mark.parametrize("shared", [0.0, 0.7, 0.99, -0.7])
def test_the_error_of_paired_medians_knows_their_correlation(shared):
    """20 of 400 should be off; fewer than 6 or more than 40 has a probability below 3e-4."""
    rng = np.random.default_rng(11)
    common, own = rng.standard_cauchy((2, 400, 2100))
    optimizer, sde = rng.standard_cauchy((400, 2100)), shared * common + (1 - abs(shared)) * own
    optimizer = common if shared else optimizer
    sde[:, :60], optimizer[:, 40:90] = np.nan, np.nan  # of which 20 on both sides
    found = estimates(pair_of(optimizer, sde), "loss")
    assert found.statistic == "median"
    off = np.abs(found.difference.value) > 1.96 * found.difference.standard_error
    assert 6 <= off.sum() <= 40
    np.testing.assert_allclose(found.first.value, np.nanmedian(optimizer, axis=-1), rtol=1e-9)


def test_a_heavy_side_is_enough_and_light_sides_keep_their_means():
    rng = np.random.default_rng(12)
    light, other, heavy = *rng.normal(size=(2, 6, 4000)), rng.standard_cauchy((6, 4000))
    for sides in ((light, heavy), (heavy, light)):
        assert compare(pair_of(*sides)).differences["loss"].statistic == "median"
    both = pair_of(heavy, heavy + light, light)  # of which the difference is light
    assert compare(both).differences["loss"].statistic == "median"
    rare = np.zeros((6, 4000))
    rare[:, 0] = 1.0
    compared = compare(pair_of(light, other, rare))
    assert compared.differences["loss"].statistic == "mean"
    np.testing.assert_array_equal(compared.differences["loss"].first, light.mean(-1))
    assert compared.verdict.endswith("may not exist: compare quantiles.")


def test_bad_input(key):
    rng = np.random.default_rng(11)
    first, second = (ensemble(rng.normal(size=(6, 100)), [0, i]) for i in range(2))
    with pytest.raises(InputError, match="same key"):
        compare(first, first)
    with pytest.raises(InputError, match="Paired"):
        compare(first)
    with pytest.raises(InputError, match="different times"):
        compare(first, ensemble(rng.normal(size=(5, 100)), [0, 2]))
    with pytest.raises(InputError, match="confidence"):
        compare(first, second, confidence=1.0)
    run = simulate(
        pair(1).sde, X0, steps=5, paths=100, key=key, records=5,
        observables={"loss": lambda x: x, "norm": jnp.linalg.norm},
    )  # fmt: skip
    scalar = Ensemble(run.time, run.step, first.moments, first.sample, 100, first.metadata)
    with pytest.raises(InputError, match="has shape"):
        compare(run, scalar)
    with pytest.raises(InputError, match="share no observable"):
        compare(first, Ensemble(first.time, first.step, {}, {}, 100, second.metadata))
