"""Weak errors: known ones inside their intervals, verdicts in words, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jaxsde import (
    InputError,
    OptimizerProcess,
    engine,
    oracles,
    plotting,
    sdes,
    theory,
    with_covariance,
)
from jaxsde.analysis import ObservableError, WeakError, fit_order, weak_error
from jaxsde.analysis.weak_error import _study
from jaxsde.oracles import FullBatch, GaussianNoise
from jaxsde.problems import DoubleWell, Quadratic
from jaxsde.processes import Refined

pytestmark = pytest.mark.usefixtures("x64")

HESSIAN, SIGMA, START = np.array([1.0, 2.0]), 0.5, np.ones(2)
ORACLE = GaussianNoise(Quadratic(HESSIAN), SIGMA)


def sgd(eta):
    return OptimizerProcess(optax.sgd, {"learning_rate": eta}, ORACLE)


def sgd_sde(eta):
    return sdes.SGD(ORACLE, eta)


def fourth(x):
    return jnp.sum(x**4)


def exact_fourth(eta, law):
    """E Σ xᵢ⁴ at t = 1, of Gaussian x: m⁴ + 6 m² v + 3 v²."""
    m, P = (
        of[0]
        for of in theory.gradient_descent.moments(
            Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([1.0]), law
        )
    )
    v = np.diag(P)
    return np.sum(m**4 + 6 * m**2 * v + 3 * v**2)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_study, "BLOCK", 256)
    monkeypatch.setattr(_study, "FIT", 512)


def test_known_errors_lie_in_their_intervals(small_blocks, key):
    """E Σ x⁴ of SGD, whose error is known in closed form; 4 points at 99.9 %: alarm 0.4 %."""
    rates = [1 / 6, 1 / 12, 1 / 24, 1 / 48]
    study = weak_error(
        sgd, sgd_sde, START, learning_rates=rates, time=1.0, key=key, confidence=0.999,
        observables={"fourth": fourth, "loss": ORACLE.problem.loss}, paths=2048, levels=4,
    )  # fmt: skip
    found = study.errors["fourth"]
    exact = np.array(
        [exact_fourth(h, theory.discrete) - exact_fourth(h, theory.sde) for h in study.dt]
    )
    slack = np.abs(found.bias)
    assert np.all((found.lower - slack <= exact) & (exact <= found.upper + slack))
    assert np.all(slack < 0.01 * np.abs(exact))
    assert found.order.whole() == 1
    assert study.errors["loss"].order.whole() == 1
    assert np.all(found.gain > found.gain_by_pairing)
    assert np.all(study.errors["loss"].gain > 100)
    assert "order 1, and no other whole one" in study.verdict
    assert study.to_xarray()["loss.error"].dims == ("learning_rate",)


def study_of(seed, **settings):
    return weak_error(
        sgd, sgd_sde, START, learning_rates=[1 / 6, 1 / 12, 1 / 24, 1 / 48], time=1.0,
        key=jax.random.key(seed), observables={"fourth": fourth}, paths=256, levels=4, **settings,
    )  # fmt: skip


def known(h):
    return np.array(
        [exact_fourth(eta, theory.discrete) - exact_fourth(eta, theory.sde) for eta in h]
    )


@pytest.mark.slow
def test_both_stages_cover_a_known_error(small_blocks):
    """200 studies; at 95 % fewer than 180 cover with probability 0.002, each of five times."""
    covered, orders, exact = np.zeros(4), 0, None
    for seed in range(200):
        study = study_of(seed)
        exact = known(study.dt) if exact is None else exact
        found = study.errors["fourth"]
        covered += (found.lower <= exact) & (exact <= found.upper)
        orders += found.order.lower <= 1 <= found.order.upper
    assert np.all(covered >= 180), covered
    assert orders >= 180


def test_final_runs_cover_a_known_error(small_blocks):
    """200 final runs after one pilot; fewer than 180 cover with probability 0.002."""
    eta, steps = 1 / 24, 24
    chain = Refined(sgd(eta), sgd_sde(eta), 1, 4)
    case = _study._case(
        chain, jnp.asarray(START), steps, 48, jax.random.split(jax.random.key(0), 3),
        {"fourth": fourth},
    )  # fmt: skip
    process, n = case.process, 256
    seen = {"fourth": with_covariance(case.seen["fourth"])}

    @jax.jit
    @jax.vmap
    def run(key):
        paths = engine.start(process, jnp.asarray(START), key, n)
        _, found = engine.evolve(process, paths, key, 0, 0, jnp.array([steps]), seen)
        return found["fourth"].moments

    moments = run(jax.random.split(jax.random.key(1), 201))
    pilot, *finals = [
        _study.Sample(mean, deviation / (n - 1), n, np.zeros((mean.size, 1)))
        for mean, deviation in zip(
            np.asarray(moments.mean[:, 0]), np.asarray(moments.deviation[:, 0]), strict=True
        )
    ]
    a, exact = _study._controls(pilot, _study._difference(4)), known([eta])[0]
    errors = np.array([_study._estimate(final, a) for final in finals])
    covered = np.sum(np.abs(errors[:, 0] - exact) <= 1.96 * errors[:, 1])
    assert 180 <= covered < 200  # all 200 with probability 3e-5: the interval is not too wide


def test_signs_reproduce_the_errors_of_the_lattice_law():
    """SignSGD's error constants on x²/2, without noise."""
    sigma, x0, time = 1.0, 1.5, 1.5
    rates = np.array([0.1, 0.05, 0.025, 0.0125])
    exact = {"x": [], "loss": []}
    functions = {"x": lambda y: y, "loss": lambda y: y**2 / 2}

    def mean_sign(y):
        return scipy.special.erf(y / sigma / np.sqrt(2))

    for eta in rates:
        steps = round(time / eta)
        chain = theory.sign.lattice_moments(
            lambda y: y, lambda z: scipy.stats.norm.cdf(z / sigma), eta, x0, steps, functions
        )
        for name, fn in functions.items():
            sde = theory.backward_equation.expectation(
                fn, lambda y: -mean_sign(y),
                lambda y, eta=eta: np.sqrt(eta * np.maximum(1 - mean_sign(y) ** 2, 0)),
                x0, time, domain=(-4.0, 5.0), tolerance=1e-7,
            )  # fmt: skip
            exact[name].append(chain[name][steps] - sde)
    constants = {name: np.abs(of) / rates for name, of in exact.items()}
    np.testing.assert_allclose(constants["x"], [0.156, 0.155, 0.154, 0.154], atol=6e-4)
    np.testing.assert_allclose(constants["loss"], [0.072, 0.077, 0.080, 0.081], atol=6e-4)
    for name in functions:
        assert fit_order(rates, exact[name]).whole() == 1


@pytest.fixture(scope="module")
def hand_made():
    """Three studies in one: a clean slope, a change of sign, and nothing but noise."""
    h = np.array([0.2, 0.1, 0.05, 0.025])

    def found(error, error_of, bias=0.0, heaviest=0.01):
        s = np.full(4, error_of)
        fit = _study._order(h, error, s, 0.95)
        ones = np.ones(4)
        return ObservableError(
            error, s, error - 2 * s, error + 2 * s, ones, ones - error, bias * ones, 0 * ones,
            5 * ones, 2 * ones, heaviest, fit,
        )  # fmt: skip

    errors = {
        "clean": found(h * np.exp(-h), 1e-5),
        "flips": found(h * (h - 0.07), 1e-5),
        "hidden": found(1e-6 * h, 1e-5),
        "last two hidden": found(np.array([0.04, 0.01, 0.0025, 0.0006]), 1e-3),
        "biased": found(h * np.exp(-h), 1e-5, bias=0.02),
        "heavy": found(h * np.exp(-h), 1e-5, heaviest=0.4),
    }
    steps, paths = np.array([5, 10, 20, 40]), np.full(4, 4096)
    return WeakError(h, h, steps, paths, np.array([1, 1, 0.5, 1]), 1.0, 0.95, 4, errors, 1.0)


def test_the_verdict_says_what_was_shown(hand_made):
    lines = dict(line.split(": ", 1) for line in hand_made.verdict.splitlines()[:-1])
    assert "order 1, and no other whole one" in lines["clean"]
    assert "changes sign between learning rates 0.1 and 0.05" in lines["flips"]
    assert "no order: the error is shown at 0 of 4" in lines["hidden"]
    assert "at most 2" in lines["hidden"]
    assert "shown at 3 of 4" not in lines["last two hidden"]
    assert "Below the noise at learning rate 0.025" in lines["last two hidden"]
    assert "more than the noise: raise the levels" in lines["biased"]
    assert "5 to 5 times below" in lines["clean"]
    assert lines["heavy"].startswith("no verdict. One path in the sample carries 40%")
    assert hand_made.verdict.splitlines()[-1].startswith("Conditional on survival: only 50.0%")
    assert "learning rate 0.05" in hand_made.verdict.splitlines()[-1]


def test_the_figure_shows_errors_bounds_and_order(hand_made):
    figure = plotting.weak_error(hand_made, title="a title")
    labels = [{text.get_text() for text in axes.get_legend().get_texts()} for axes in figure.axes]
    assert len(labels) == 6
    assert {"optimizer - SDE > 0", "integrator's last correction"} < labels[0]
    assert any(label.startswith("leading term, order ") for label in labels[0])
    assert {"optimizer - SDE > 0", "optimizer - SDE < 0"} < labels[1]
    assert "below the noise: 95% bound" in labels[2]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rates": [0.1]}, "at least two"),
        ({"confidence": 1.5}, "confidence"),
        ({"warm_up": 1.0}, "warm_up"),
        ({"paths": 100}, "paths"),
        ({"learning_rates": [0.1, 0.1]}, "different"),
        ({"learning_rates": [0.1, 0.03]}, "time 1 is no multiple of the step 0.03"),
        ({"learning_rates": [0.1, -0.1]}, "learning_rates"),
        ({"levels": 1}, "levels"),
        ({"width": 0.0}, "width"),
        ({"observables": {"k": engine.of_state(lambda state: 0.0)}}, "is of the state"),
    ],
)
def test_bad_input_is_refused(changed, words, key):
    settings = {"learning_rates": [0.1, 0.05], "time": 1.0, "key": key} | changed
    with pytest.raises(InputError, match=words):
        weak_error(sgd, sgd_sde, START, **settings)


def test_float32_is_refused(key):
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        weak_error(sgd, sgd_sde, START, learning_rates=[0.1, 0.05], time=1.0, key=key)


def oracle_pair(oracle):
    def pair(eta):
        return OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle), sdes.SGD(oracle, eta)

    return pair


def test_without_noise_the_error_is_that_of_gradient_descent(small_blocks, key):
    """And an observable that is 0 on both sides has none."""
    oracle = FullBatch(ORACLE.problem)
    pair = oracle_pair(oracle)
    study = weak_error(
        lambda eta: pair(eta)[0], lambda eta: pair(eta)[1], START, time=0.5, key=key, paths=256,
        learning_rates=[0.1, 0.05, 0.025], levels=4,
        observables={"loss": oracle.problem.loss, "nothing": lambda x: 0 * jnp.sum(x)},
    )  # fmt: skip
    steps, flow = np.array([5, 10, 20]), START * np.exp(-HESSIAN * 0.5)
    ends = [START * (1 - HESSIAN * h) ** k for h, k in zip(study.dt, steps, strict=True)]
    exact = [np.sum(HESSIAN * (x**2 - flow**2)) / 2 for x in ends]
    np.testing.assert_allclose(study.errors["loss"].error, exact, rtol=1e-3)
    assert "There is no noise in it" in study.verdict
    assert "nothing: no order: the error is shown at 0 of 3" in study.verdict


def test_divergence_is_refused_by_name(small_blocks, key):
    wild = GaussianNoise(DoubleWell(), 3.0)
    pair = oracle_pair(wild)
    with pytest.raises(InputError, match="paths diverge at the step 1, "):
        weak_error(
            lambda eta: pair(eta)[0], lambda eta: pair(eta)[1], np.ones(1), time=8.0, key=key,
            learning_rates=[1.0, 0.5], paths=256, levels=2,
        )  # fmt: skip


def test_no_verdict_where_means_may_not_exist(small_blocks, key):
    """The loss under Student-t noise with ν = 2.1 has no variance."""
    pair = oracle_pair(oracles.StudentTNoise(ORACLE.problem, 0.5, 2.1))
    study = weak_error(
        lambda eta: pair(eta)[0], lambda eta: pair(eta)[1], START, time=0.3, key=key,
        learning_rates=[0.1, 0.05], paths=256, levels=2,
    )  # fmt: skip
    assert study.errors["loss"].heaviest > 0.1
    assert study.verdict.startswith("loss: no verdict. One path in the sample carries")
