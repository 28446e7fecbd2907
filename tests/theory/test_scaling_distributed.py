"""Scaling rules for agents, compression and the batches of sign methods."""

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import distributed, scaling, sign

BASE = {"learning_rate": 0.02, "batch_size": 8.0, "agents": 2, "omega": 0.0}
KNOBS = ["learning_rate", "batch_size", "agents"]
FACTORS = st.floats(1 / 64, 64)
OMEGAS = st.floats(0, 16)
RECORDS = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-6, 1e-2),
        "batch_size": st.floats(0.1, 4096),
        "agents": st.floats(1, 64),
        "omega": OMEGAS,
    },
    optional={"weight_decay": st.floats(0, 1), "l2_regularization": st.floats(0, 1)},
)


def level_of(hp, *, sharp=True, mu=0.5, smoothness=2.0):
    return distributed.loss_level(
        learning_rate=hp["learning_rate"], mu=mu, smoothness=smoothness, dimension=3,
        sigma=1.5, agents=hp["agents"], omega=hp["omega"], batch_size=hp["batch_size"],
        sharp=sharp,
    )  # fmt: skip


def same(record, other):
    assert list(record) == list(other)
    for name, value in record.items():
        assert value == pytest.approx(other[name], rel=1e-9), name


@given(RECORDS, st.sampled_from(KNOBS), OMEGAS, OMEGAS, st.sampled_from([0.0, 1.0, 4.0]))
def test_compression_composes_and_inverts(hp, knob, a, b, curvature):
    assume(hp["learning_rate"] * curvature * 16 < 0.9 * hp["agents"])
    once = scaling.compression(hp, a, knob, curvature)
    assert once["omega"] == a
    assert {name for name in hp if once[name] != hp[name]} <= {knob, "omega"}
    same(scaling.compression(once, b, knob, curvature), scaling.compression(hp, b, knob, curvature))
    same(scaling.compression(once, hp["omega"], knob, curvature), hp)
    same(scaling.compression(hp, hp["omega"], knob, curvature), hp)


@pytest.mark.parametrize("sharp", [True, False])
@pytest.mark.parametrize("omega", [0.0, 3.0])
@pytest.mark.parametrize("knob", ["learning_rate", "batch_size"])
def test_compression_keeps_the_level_of_the_bound(knob, omega, sharp):
    curvature = 2.0 / 2 if sharp else 2.0**2 / (2 * 0.5)
    hp = BASE | {"omega": omega}
    moved = scaling.compression(hp, 7.0, knob, curvature)
    assert level_of(moved, sharp=sharp) == pytest.approx(level_of(hp, sharp=sharp), rel=1e-12)
    first_order = scaling.compression(hp, 7.0, knob)
    assert level_of(first_order) == pytest.approx(level_of(hp), rel=0.1)
    assert abs(level_of(first_order) / level_of(hp) - 1) > 1e-3


def test_compression_keeps_the_level_by_agents():
    """α = 1 + ω (1 + η K/N): at η K/N = 1/2, ω = 2 makes 2 agents 8."""
    hp = BASE | {"learning_rate": 0.5}
    moved = scaling.compression(hp, 2.0, "agents", 2.0)
    assert moved == hp | {"agents": pytest.approx(8), "omega": 2.0}
    moved["agents"] = round(moved["agents"])
    levels = [level_of(record, mu=1.0, smoothness=4.0) for record in (hp, moved)]
    assert levels[0] == pytest.approx(levels[1], rel=1e-12)


def test_compression_by_hand():
    """From ω = 0: κ = 1/(1 + ω (1 + η K/N)), δ = (1 + ω)/(1 - η K ω/N), η K/N = 0.04."""
    K, change = 4.0, {"omega": 3.0}
    for knob, first, exact in [
        ("learning_rate", 1 / 4, 1 / 4.12),
        ("batch_size", 4, 4 / 0.88),
        ("agents", 4, 4.12),
    ]:
        found = scaling.compression(BASE, 3.0, knob)
        assert found == pytest.approx(BASE | change | {knob: BASE[knob] * first}, rel=1e-12)
        found = scaling.compression(BASE, 3.0, knob, K)
        assert found == pytest.approx(BASE | change | {knob: BASE[knob] * exact}, rel=1e-12)
    found = scaling.compression({"agents": 8}, 1.0, "agents")
    assert found == {"agents": 16, "omega": 1.0}
    less = scaling.compression({"batch_size": 8, "omega": 3.0}, 0.0, "batch_size")
    assert less == {"batch_size": 2, "omega": 0.0}


def test_compression_on_a_quadratic():
    """What is left of the compression's fourfold loss, exactly, H = diag(1, 1.5, 2, 3)."""
    problem = Quadratic(np.array([1.0, 1.5, 2.0, 3.0]))
    losses = []
    for hp in [BASE] + [scaling.compression(BASE, 3.0, knob) for knob in KNOBS]:
        covariance = distributed.stationary_covariance(
            problem, np.ones(4) / hp["batch_size"], hp["learning_rate"], theory.discrete,
            agents=round(hp["agents"]), omega=hp["omega"],
        )  # fmt: skip
        losses.append(np.diag(covariance) @ [1.0, 1.5, 2.0, 3.0] / 2)
    np.testing.assert_allclose(np.array(losses[1:]) / losses[0], [0.993, 1.030, 1.008], rtol=2e-3)


@given(RECORDS, FACTORS, FACTORS)
def test_agents_linear_composes_inverts_and_keeps_the_sde(hp, a, b):
    once = scaling.agents_linear(hp, a)
    same(scaling.agents_linear(once, b), scaling.agents_linear(hp, a * b))
    same(scaling.agents_linear(once, 1 / a), hp)
    assert once["agents"] == pytest.approx(a * hp["agents"])
    assert once["learning_rate"] / once["agents"] == pytest.approx(
        hp["learning_rate"] / hp["agents"]
    )
    assert {name for name in hp if once[name] != hp[name]} <= {"learning_rate", "agents"}


def test_agents_linear_keeps_the_laws():
    laws, levels = [], []
    for hp in (BASE | {"omega": 3.0}, scaling.agents_linear(BASE | {"omega": 3.0}, 3)):
        args = Quadratic(np.array([1.0, 3.0])), np.ones(2), hp["learning_rate"], np.ones(2), 0.7
        laws.append(distributed.moments(*args, agents=hp["agents"], omega=3.0).covariance)
        levels.append(
            distributed.sign_loss_level(
                learning_rate=hp["learning_rate"], mu=1.0, hessian_trace=4.0, sigma=2.0,
                agents=hp["agents"],
            )
        )  # fmt: skip
    np.testing.assert_allclose(laws[0], laws[1], rtol=1e-12)
    assert levels[0] == pytest.approx(levels[1], rel=1e-12)


NUS = st.sampled_from([1.25, 1.5, 2.0, 3.0, np.inf])
SIGN_RECORDS = RECORDS.map(lambda hp: hp | {"omega": 0.0})


@given(SIGN_RECORDS, FACTORS, FACTORS, NUS)
def test_sign_batch_composes_and_inverts(hp, a, b, nu):
    once = scaling.sign_batch(hp, a, nu)
    same(scaling.sign_batch(once, b, nu), scaling.sign_batch(hp, a * b, nu))
    same(scaling.sign_batch(once, 1 / a, nu), hp)
    assert once["batch_size"] == pytest.approx(a * hp["batch_size"])


@pytest.mark.parametrize(
    ("nu", "growth"), [(np.inf, 4), (3.0, 4), (2.0, 4), (1.5, 16 ** (1 / 3)), (1.25, 16**0.2)]
)
def test_sign_batch_by_hand(nu, growth):
    hp = {"learning_rate": 0.01, "batch_size": 2, "weight_decay": 0.1, "l2_regularization": 0.2}
    expected = {"learning_rate": 0.01 * growth, "batch_size": 32, "weight_decay": 0.1 * growth}
    assert scaling.sign_batch(hp, 16, nu) == pytest.approx(hp | expected, rel=1e-12)


def test_sign_batch_keeps_the_gaussian_level_and_the_speed_per_sample():
    found = []
    for hp in (BASE, scaling.sign_batch(BASE, 4)):
        constants = {"learning_rate": hp["learning_rate"], "mu": 1.0, "hessian_trace": 4.0}
        level = distributed.sign_loss_level(
            sigma=2.0, agents=2, batch_size=int(hp["batch_size"]), **constants
        )
        speed = sign.slope() * np.sqrt(hp["batch_size"]) / 2.0
        found.append([level, speed * hp["learning_rate"] / hp["batch_size"]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_how_the_means_of_heavy_tailed_batches_shrink():
    """1/(density at 0) of the mean of B draws, by its characteristic function: B^(1/ν - 1)."""

    def width(nu, B):
        u = np.geomspace(1e-12, 60, 20_001)
        z = np.sqrt(nu) * u
        log_phi = (
            (1 - nu / 2) * np.log(2) - scipy.special.gammaln(nu / 2)
            + nu / 2 * np.log(z) + np.log(scipy.special.kve(nu / 2, z)) - z
        )  # fmt: skip
        return np.pi / (B * np.trapezoid(np.exp(B * log_phi), u))

    for nu in (1.25, 1.5, 1.75, 3.0):
        B = 1e8
        growth = scaling.sign_batch({"learning_rate": 1.0}, 4, nu)["learning_rate"]
        assert width(nu, B) / width(nu, 4 * B) == pytest.approx(growth, rel=0.01)
    logarithm = np.sqrt(np.log(4 * B) / np.log(B))
    assert width(2, B) / width(2, 4 * B) == pytest.approx(2 / logarithm, rel=0.01)


def test_existing_rules_with_agents_and_omega():
    hp = {"learning_rate": 0.1, "batch_size": 8, "agents": 4, "omega": 0.0}
    for rule in (scaling.linear, scaling.square_root, scaling.bound_preserving):
        moved = rule(hp, 4)
        assert (moved["agents"], moved["omega"], moved["batch_size"]) == (4, 0, 32)
        with pytest.raises(InputError, match="omega must be 0 here, got 3"):
            rule(hp | {"omega": 3.0}, 4)
        for name, value in [("agents", 0), ("agents", np.ones(2)), ("omega", -1.0)]:
            with pytest.raises(InputError, match=name):
                rule({name: value}, 2.0)
        with pytest.raises(InputError, match="omega must be one number"):
            rule({"omega": np.ones(2)}, 2.0)
    assert scaling.svag(hp, 2, scaling.linear)["agents"] == 4
    for name in ("agents", "omega"):
        with pytest.raises(InputError, match=f"{name} has no scaled form"):
            scaling.to_scaled({"learning_rate": 0.1, name: 1}, 1.0)


def test_compressions_that_cannot_be_are_refused():
    def refused(match, hp=BASE, omega=3.0, knob="agents", curvature=0.0):
        with pytest.raises(InputError, match=match):
            scaling.compression(hp, omega, knob, curvature)

    refused("omega must be finite and not negative", omega=-1.0)
    refused("omega must be one number", omega=np.ones(2))
    refused("curvature must be finite and not negative", curvature=-1.0)
    refused("unknown knob 'agent'; did you mean agents", knob="agent")
    refused("batch_size is missing", {"learning_rate": 0.1}, knob="batch_size")
    refused("learning_rate is missing", {"agents": 2}, curvature=1.0)
    refused("unknown hyperparameter", {"lr": 0.1})
    refused("b1 an adaptive method's", BASE | {"b1": 0.9})
    refused("no level: .* less than 1, got 1.2", knob="batch_size", curvature=40.0)
    for knob in KNOBS:
        refused("no level", BASE | {"omega": 3.0}, 1.0, knob, 40.0)
    moved = scaling.compression(BASE, 3.0, "learning_rate", 40.0)
    assert moved["learning_rate"] < BASE["learning_rate"] / 4


def test_other_bad_arguments_are_refused():
    for rule in (scaling.agents_linear, scaling.sign_batch):
        for factor in (0.0, -1.0, np.inf, np.ones(2)):
            with pytest.raises(InputError, match="factor"):
                rule(BASE, factor)
        with pytest.raises(InputError, match="eps an adaptive method's"):
            rule(BASE | {"eps": 1e-8}, 2.0)
        with pytest.raises(InputError, match="unknown hyperparameter"):
            rule({"N": 2}, 2.0)
        assert rule({}, 2.0) == {}
    for nu in (1.0, 0.5):
        with pytest.raises(InputError, match="no quieter for degrees_of_freedom <= 1"):
            scaling.sign_batch(BASE, 2.0, nu)
    with pytest.raises(InputError, match="degrees_of_freedom must be positive"):
        scaling.sign_batch(BASE, 2.0, 0.0)
    with pytest.raises(InputError, match="signs are not compressed"):
        scaling.sign_batch(BASE | {"omega": 1.0}, 2.0)
