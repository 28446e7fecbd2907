"""Scaling rules: what each keeps, and that they compose and invert."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive, scaling
from jaxsde.theory import gradient_descent as gd

SGD = {"learning_rate": 0.1, "weight_decay": 0.01, "batch_size": 64}
ADAM = {
    "learning_rate": 1e-3,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "l2_regularization": 0.01,
    "batch_size": 256,
}
RMSPROP = {"learning_rate": 1e-3, "decay": 0.99, "eps": 1e-8, "batch_size": 256}

FACTORS = st.floats(1 / 64, 64)
RATES = st.floats(1e-6, 1)
MEMORIES = st.floats(1e-4, 1).map(lambda forgetting: 1 - forgetting)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": RATES,
        "b1": MEMORIES,
        "b2": MEMORIES,
        "decay": MEMORIES,
        "eps": st.one_of(st.just(0.0), RATES),
        "weight_decay": st.one_of(st.just(0.0), RATES),
        "l2_regularization": RATES,
        "batch_size": st.floats(0.1, 4096),
    },
)
RULES = st.sampled_from([scaling.linear, scaling.square_root, scaling.bound_preserving])


def same(record, other):
    """Equal to rounding, that of 1 - β for the betas."""
    assert list(record) == list(other)
    for name, value in record.items():
        if name in ("b1", "b2", "decay"):
            assert 1 - value == pytest.approx(1 - other[name], rel=1e-9)
        else:
            assert value == pytest.approx(other[name], rel=1e-12)


def for_rule(rule, hp):
    kept = {"learning_rate", "weight_decay", "l2_regularization", "batch_size"}
    return {k: v for k, v in hp.items() if rule is not scaling.linear or k in kept}


def feasible(rule, hp, factor):
    """Whether all (1 - β) multiplied stay below 1."""
    by = {scaling.square_root: factor, scaling.bound_preserving: factor**0.5}.get(rule, 0)
    return all(by * (1 - hp[name]) <= 1 for name in ("b1", "b2", "decay") if name in hp)


@given(RULES, RECORDS, FACTORS, FACTORS)
def test_rules_compose(rule, hp, a, b):
    hp = for_rule(rule, hp)
    assume(feasible(rule, hp, a) and feasible(rule, hp, a * b))
    same(rule(rule(hp, a), b), rule(hp, a * b))


@given(RULES, RECORDS, FACTORS)
def test_rules_invert(rule, hp, a):
    hp = for_rule(rule, hp)
    assume(feasible(rule, hp, a))
    same(rule(rule(hp, a), 1 / a), hp)
    same(rule(hp, 1.0), hp)


def test_rules_by_hand():
    assert scaling.linear(SGD, 4) == pytest.approx(SGD | {"learning_rate": 0.4, "batch_size": 256})
    bigger = {"learning_rate": 2e-3, "eps": 5e-9, "weight_decay": 0.2, "batch_size": 1024}
    found = scaling.square_root(ADAM, 4)
    assert found == pytest.approx(ADAM | bigger | {"b1": 0.6, "b2": 0.996}, abs=1e-12)
    found = scaling.bound_preserving(ADAM, 4)
    assert found == pytest.approx(ADAM | bigger | {"b1": 0.8, "b2": 0.998}, abs=1e-12)
    found = scaling.bound_preserving(RMSPROP, np.float64(16))
    expected = {"learning_rate": 4e-3, "decay": 0.96, "eps": 2.5e-9, "batch_size": 4096}
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rule", [scaling.linear, scaling.square_root, scaling.bound_preserving])
def test_absent_keys_stay_absent_and_records_are_not_changed(rule):
    assert rule({}, 2.0) == {}
    assert rule({"batch_size": 8}, 2.0) == {"batch_size": 16}
    before = dict(SGD)
    rule(SGD, 3.0)
    assert before == SGD


def test_the_linear_rule_keeps_the_sde_of_sgd():
    """Laws at equal t, the noise of a batch being Σ/B, and t per sample."""
    found = []
    for hp in (SGD, scaling.linear(SGD, 5)):
        covariance = np.array([3.0, 0.5]) / hp["batch_size"]
        args = Quadratic(np.array([1.0, 4.0])), covariance, hp["learning_rate"]
        law = gd.moments(*args, np.ones(2), 0.7)
        found.append([*law, gd.stationary_covariance(*args)])
        assert hp["learning_rate"] / hp["batch_size"] == pytest.approx(0.1 / 64)
    for base, scaled in zip(*found, strict=True):
        np.testing.assert_allclose(scaled, base, rtol=1e-12)


@given(RECORDS, FACTORS, st.floats(0.01, 10))
def test_the_square_root_rule_keeps_the_scaled_hyperparameters(hp, factor, sigma):
    hp = {"learning_rate": 1e-3} | hp
    assume(feasible(scaling.square_root, hp, factor))
    base = scaling.to_scaled(hp, sigma)
    scaled = scaling.to_scaled(scaling.square_root({"batch_size": 1} | hp, factor), sigma)
    assert scaled.learning_rate == pytest.approx(base.learning_rate * factor**0.5, rel=1e-11)
    for name, value in base._asdict().items():
        if value is None:
            assert getattr(scaled, name) is None
        elif name != "learning_rate":
            assert getattr(scaled, name) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(
    ("hp", "square_root", "bound_preserving"),
    [
        # Fine steps: exactly as the SDE has it, (1 + θ/ρ₁) / (1 + 4 θ/ρ₁) with θ/ρ₁ = 2.
        ({"learning_rate": 1e-4, "b1": 0.9999, "weight_decay": 2.0}, 1, 3 / 9),
        # Where the literature's rules were simulated: 5.5e-4 → 6.1e-4 and 2.9e-4.
        ({"learning_rate": 5e-3, "b1": 0.98, "weight_decay": 2.0}, 6.1 / 5.5, 2.9 / 5.5),
    ],
)
def test_what_rules_do_to_the_stationary_variance(hp, square_root, bound_preserving):
    problem, hp = Quadratic(np.ones(1)), hp | {"batch_size": 1.0}
    records = hp, scaling.square_root(hp, 16), scaling.bound_preserving(hp, 16)
    formula = [adaptive.stationary_variance(problem, 1.0, **record)[0] for record in records]
    exact = [
        adaptive.frozen_second_moment_law(problem, 1.0, law=theory.discrete, **record).variance[0]
        for record in records
    ]
    for found in (formula, exact):
        ratios = np.array(found[1:]) / found[0]
        np.testing.assert_allclose(ratios, [square_root, bound_preserving], rtol=0.02)


@given(FACTORS)
def test_the_bound_preserving_rule_keeps_the_bound_and_the_rates(factor):
    hp = ADAM | {"b1": 0.999}
    assume(feasible(scaling.bound_preserving, hp, factor))
    scaled = scaling.bound_preserving(hp, factor)
    constants = {"mu": 0.5, "smoothness": 2.0, "hessian_trace": 3.0, "sigma": 1.5}

    def kept(hp):
        shared = {name: hp[name] for name in ("learning_rate", "batch_size")}
        return [
            adaptive.loss_level(**constants, **shared, weight_decay=hp["weight_decay"]),
            adaptive.loss_level(**constants, **shared),
            (1 - hp["b1"]) / hp["learning_rate"],
            (1 - hp["b2"]) / hp["learning_rate"],
            hp["eps"] * np.sqrt(hp["batch_size"]),
            hp["learning_rate"] * hp["weight_decay"] / hp["batch_size"],  # decay per sample
        ]

    np.testing.assert_allclose(kept(scaled), kept(hp), rtol=1e-9)


def test_svag_is_the_rule_backwards():
    found = scaling.svag(ADAM, 2, scaling.square_root)
    expected = ADAM | {"learning_rate": 5e-4, "b1": 0.975, "b2": 0.99975, "eps": 2e-8}
    expected |= {"weight_decay": 0.05, "batch_size": 64}
    assert found == pytest.approx(expected, abs=1e-12)
    found = scaling.svag(SGD, 2.5, scaling.linear)
    assert found == pytest.approx(SGD | {"learning_rate": 0.04, "batch_size": 25.6})
    same(scaling.svag(ADAM, 1, scaling.square_root), ADAM)
    assert scaling.svag({"batch_size": 1}, 8, scaling.linear)["batch_size"] == 1 / 8


@pytest.mark.parametrize(("rule", "power"), [(scaling.linear, 1), (scaling.square_root, 2)])
def test_svag_weights_make_the_synthetic_batch(rule, power):
    l = 3  # noqa: E741
    F = l**power
    r = (1 + np.sqrt(2 * F - 1) * np.array([-1, 1])) / 2
    B = scaling.svag({"batch_size": 64}, l, rule)["batch_size"]
    assert np.sum(r) == pytest.approx(1)
    assert np.sum(r**2) == pytest.approx(64 / B)


@given(RECORDS, st.floats(0.01, 10))
def test_scaled_records_convert_back(hp, sigma):
    hp = {"learning_rate": 1e-3, "batch_size": 2.0} | hp
    back = scaling.from_scaled(scaling.to_scaled(hp, sigma), sigma)
    same({name: back[name] for name in hp}, hp)
    assert set(back) == set(hp)


def test_scaled_records_by_hand():
    found = scaling.to_scaled(ADAM, 4.0)
    expected = {
        "learning_rate": 1e-3,
        "sigma_0": 1e-3 * 4 / 16,
        "eps_0": 1e-11,
        "c_1": 1e5,
        "c_2": 1e3,
        "theta_0": 100.0,
        "l2_regularization": 0.01,
    }
    assert {k: v for k, v in found._asdict().items() if v is not None} == pytest.approx(expected)
    rmsprop = scaling.to_scaled({"learning_rate": 0.1, "decay": 0.75}, 3.0)
    assert rmsprop == pytest.approx((0.1, 0.3, None, None, None, 25.0, None, None))


def test_another_learning_rate_is_the_square_root_rule():
    scaled = scaling.to_scaled(ADAM, 4.0)._replace(learning_rate=2e-3)
    moved = scaling.from_scaled(scaled, 4.0)
    expected = scaling.square_root(ADAM, 4)
    same({name: moved[name] for name in expected}, expected)


@pytest.mark.parametrize(
    ("rule", "largest"), [(scaling.square_root, 10), (scaling.bound_preserving, 100)]
)
def test_infeasible_factors_are_refused_with_the_largest_that_goes(rule, largest):
    with pytest.raises(InputError, match=rf"b1 would be negative .* that goes is {largest}$"):
        rule(ADAM, 1.01 * largest)
    at_the_edge = rule(ADAM, largest)
    assert at_the_edge["b1"] == pytest.approx(0, abs=1e-12)
    assert at_the_edge["b1"] >= 0
    with pytest.raises(InputError, match=r"b1 .* that goes is 1$"):
        rule({"b1": 0.0, "b2": 0.999}, 2.0)
    with pytest.raises(InputError, match="decay would round to 1"):
        rule({"decay": 0.9}, 1e-40)


@pytest.mark.parametrize("rule", [scaling.linear, scaling.square_root, scaling.bound_preserving])
def test_bad_records_are_refused(rule):
    with pytest.raises(InputError, match="unknown hyperparameter 'lr'"):
        rule({"lr": 0.1}, 2.0)
    for factor in (0.0, -1.0, np.inf, np.ones(2)):
        with pytest.raises(InputError, match="factor"):
            rule(SGD, factor)
    for name, value in [
        ("learning_rate", 0.0),
        ("b1", 1.0),
        ("b2", -0.1),
        ("decay", np.nan),
        ("eps", -1e-8),
        ("weight_decay", -1.0),
        ("l2_regularization", -1.0),
        ("batch_size", 0),
        ("batch_size", np.ones(2)),
    ]:
        with pytest.raises(InputError, match=name):
            rule({name: value}, 2.0)


@pytest.mark.parametrize("name", ["b1", "b2", "decay", "eps"])
def test_the_linear_rule_refuses_adaptive_methods(name):
    with pytest.raises(InputError, match=f"{name} an adaptive method's"):
        scaling.linear({"learning_rate": 0.1, name: 0.5}, 2.0)
    with pytest.raises(InputError, match="adaptive method's"):
        scaling.svag({"learning_rate": 0.1, name: 0.5}, 2.0, scaling.linear)


def test_bad_svag_and_scaled_values_are_refused():
    with pytest.raises(InputError, match="l must be at least 1"):
        scaling.svag(ADAM, 0.5, scaling.square_root)
    with pytest.raises(InputError, match="rule must be"):
        scaling.svag(ADAM, 2, scaling.bound_preserving)
    with pytest.raises(InputError, match="learning_rate is missing"):
        scaling.to_scaled({"b1": 0.9}, 1.0)
    with pytest.raises(InputError, match="sigma must be positive"):
        scaling.to_scaled(ADAM, 0.0)
    with pytest.raises(InputError, match="unknown hyperparameter"):
        scaling.to_scaled({"learning_rate": 0.1, "beta": 0.9}, 1.0)
    scaled = scaling.to_scaled(ADAM, 1.0)
    with pytest.raises(InputError, match="sigma must be positive"):
        scaling.from_scaled(scaled, -1.0)
    for name in ("learning_rate", "sigma_0", "c_1"):
        with pytest.raises(InputError, match=name):
            scaling.from_scaled(scaled._replace(**{name: 0.0}), 1.0)
    with pytest.raises(InputError, match="eps"):
        scaling.from_scaled(scaled._replace(eps_0=-1.0), 1.0)
    with pytest.raises(InputError, match=r"b1 would be negative .* goes is 0.00316228$"):
        scaling.from_scaled(scaled._replace(learning_rate=0.004), 1.0)
