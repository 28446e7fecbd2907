"""Weak errors: exact controls, known errors inside their intervals, verdicts in words."""

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
    Paired,
    SDEProcess,
    engine,
    oracles,
    plotting,
    sdes,
    simulate,
    theory,
    with_covariance,
)
from jaxsde.analysis import ObservableError, WeakError, fit_order, weak_error
from jaxsde.analysis.weak_error import _study, _surrogate
from jaxsde.engine import Index, Normal, Rademacher, StudentT, Uniform
from jaxsde.problems import Quadratic
from jaxsde.processes import Refined

pytestmark = pytest.mark.usefixtures("x64")

HESSIAN, SIGMA, START = np.array([1.0, 2.0]), 0.5, np.ones(2)
ORACLE = oracles.GaussianNoise(Quadratic(HESSIAN), SIGMA)


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


@pytest.mark.parametrize("law", [Normal(), Uniform(), Rademacher(), StudentT(1.5)])
def test_features_have_mean_zero_and_the_covariance_they_claim(law):
    """By quadrature over the law's quantiles."""
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    quantiles = {
        Normal: scipy.stats.norm.ppf, Uniform: lambda u: u, Rademacher: lambda u: np.sign(u - 0.5),
        StudentT: lambda u: scipy.stats.t.ppf(u, 1.5),
    }  # fmt: skip
    of, covariance = _surrogate.features(law, ())
    phi = np.reshape(of(quantiles[type(law)](u)), (-1, u.size))
    np.testing.assert_allclose(phi.mean(axis=1), 0, atol=2e-6)
    np.testing.assert_allclose(phi @ phi.T / u.size, covariance, atol=3e-5)


@pytest.mark.parametrize("replace", [True, False])
def test_counts_of_a_batch_have_the_covariance_they_claim(replace):
    """By enumeration of all batches of 2 from 4, for two independent batches at once."""
    of, covariance = _surrogate.features(Index(4, 2, replace), (2,))
    pairs = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2)
    batches = pairs if replace else pairs[pairs[:, 0] != pairs[:, 1]]
    both = [np.stack([a, b]) for a in batches for b in batches]
    phi = np.array([of(value) for value in both])
    np.testing.assert_allclose(phi.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(phi.T @ phi / len(phi), covariance, atol=1e-12)


def test_every_level_is_the_euler_chain_at_its_step(key):
    """The finest is that of a pair with as many substeps; at one substep the SDE is SGD itself."""
    eta, steps = 0.1, 5
    refined = Refined(sgd(eta), sgd_sde(eta), 1, 3)
    settings = {"steps": steps, "paths": 32, "records": [steps], "key": key}
    levels = simulate(
        refined, START, **settings,
        observables={
            "optimizer": lambda x: x.optimizer,
            **{str(j): lambda x, j=j: x.sdes[j] for j in range(3)},
        },
    )  # fmt: skip
    np.testing.assert_allclose(levels.sample["0"], levels.sample["optimizer"], rtol=1e-12)
    pair = Paired(sgd(eta), SDEProcess(sgd_sde(eta), eta / 4), 4)
    finest = simulate(pair, START, **settings, observables={"x": lambda x: x})
    np.testing.assert_allclose(levels.sample["2"], finest.sample["sde.x"], rtol=1e-12)
    moments = theory.gradient_descent.moments(
        Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([0.5]), theory.em(eta / 2)
    )
    middle = levels.sample["1"][0]
    z = (middle.mean(axis=1) - moments.mean[0]) / np.sqrt(np.diag(moments.covariance[0]) / 32)
    assert np.all(np.abs(z) < 4.5)  # false alarm: 1.4e-5


def test_on_a_linear_chain_the_surrogate_is_the_chain():
    """Its covariance is the closed form, and of a quadratic g nothing is left to chance."""
    eta, steps = 0.125, 8
    chain = Refined(sgd(eta), sgd_sde(eta), 1, 2)
    found = _surrogate.fit(chain, jnp.asarray(START), steps, steps, 512, jax.random.key(1))
    for surrogate, law in zip(
        found, (theory.discrete, theory.em(eta), theory.em(eta / 2)), strict=True
    ):
        exact = theory.gradient_descent.moments(
            Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([1.0]), law
        )
        np.testing.assert_allclose(surrogate.covariance, exact.covariance[0], atol=1e-8)


def test_known_errors_lie_in_their_intervals(small_blocks, key):
    """E Σ x⁴ of SGD, whose error is known in closed form; 3 points at 99.9 %: alarm 0.3 %."""
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
        _study.Sample(mean, deviation / (n - 1), n)
        for mean, deviation in zip(
            np.asarray(moments.mean[:, 0]), np.asarray(moments.deviation[:, 0]), strict=True
        )
    ]
    a, exact = _study._controls(pilot, _study._difference(4)), known([eta])[0]
    errors = np.array([_study._estimate(final, a) for final in finals])
    covered = np.sum(np.abs(errors[:, 0] - exact) <= 1.96 * errors[:, 1])
    assert 180 <= covered < 200  # all 200 with probability 3e-5: the interval is not too wide


def test_signs_reproduce_the_errors_of_the_lattice_law(key):
    """SignSGD's error constants on x²/2, and the study's intervals around them."""
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

    def found(error, error_of, bias=0.0):
        s = np.full(4, error_of)
        fit = _study._order(h, error, s, 0.95)
        ones = np.ones(4)
        return ObservableError(
            error, s, error - 2 * s, error + 2 * s, ones, ones - error, bias * ones, 5 * ones,
            2 * ones, fit,
        )  # fmt: skip

    errors = {
        "clean": found(h * np.exp(-h), 1e-5),
        "flips": found(h * (h - 0.07), 1e-5),
        "hidden": found(1e-6 * h, 1e-5),
        "last two hidden": found(np.array([0.04, 0.01, 0.0025, 0.0006]), 1e-3),
        "biased": found(h * np.exp(-h), 1e-5, bias=0.02),
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
    assert "more than the noise: raise substeps or levels" in lines["biased"]
    assert "5 to 5 times below" in lines["clean"]
    assert hand_made.verdict.splitlines()[-1].startswith("Conditional on survival: only 50.0%")
    assert "learning rate 0.05" in hand_made.verdict.splitlines()[-1]


def test_the_figure_shows_errors_bounds_and_order(hand_made):
    figure = plotting.weak_error(hand_made, title="a title")
    labels = [{text.get_text() for text in axes.get_legend().get_texts()} for axes in figure.axes]
    assert len(labels) == 5
    assert {"optimizer - SDE > 0", "integrator's last correction"} < labels[0]
    assert any(label.startswith("leading term, order ") for label in labels[0])
    assert {"optimizer - SDE > 0", "optimizer - SDE < 0"} < labels[1]
    assert "below the noise: 95% bound" in labels[2]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rates": [0.1]}, "at least two"),
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
