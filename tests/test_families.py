"""Every pair in the table runs on every kind of noise it allows and stands beside its laws."""

import jax
import numpy as np
import pytest

from jaxsde import InputError, families, simulate
from jaxsde.engine.noise import is_draw
from jaxsde.oracles import GaussianNoise, MinibatchNoise, StudentTNoise
from jaxsde.problems import NAMED, LogisticRegression, Players, Quadratic, QuadraticGame, named

PROBLEM = Quadratic([1.0, 2.5])
X0 = np.array([0.5, -0.3], np.float32)
STEPS, SUBSTEPS = 60, 2
# In every comparison below 4 correlated normal statistics: a false alarm has probability < 4e-5.
BOUND = 4.5


def run(family, oracle, key, x0=X0, steps=STEPS, paths=20_000):
    pair = family.pair(oracle, family.learning_rate, SUBSTEPS)
    return simulate(
        pair, x0, steps=steps, paths=paths, key=key, records=4, observables=pair.observables()
    )


def off(ensemble, side, law):
    error = ensemble.standard_error(f"{side}.loss")
    return np.abs(ensemble.mean(f"{side}.loss") - law)[error > 0] / error[error > 0]


EXACT = [
    "sgd", "sgd-order-2", "sign_sgd", "sign_sgd-linearized", "usam", "usam-full-perturbation"
]  # fmt: skip
GAMES = ["sgda", "seg", "seg-independent", "shgd", "shgd-one-draw"]
AGENTS = [
    "dsgd", "dcsgd-random-k", "dcsgd-bernoulli-k", "dsign_sgd", "dsign_sgd-linearized",
    "dsign_sgd-majority",
]  # fmt: skip
STATIONARY = ["rmsprop", "rmspropw", "adam", "adam-l2", "adamw", "adamw-published", "sam"]
UNKNOWN = set(families.FAMILIES) - {*EXACT, *AGENTS, *STATIONARY, *GAMES}


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        *((name, "gaussian") for name in (*EXACT, *AGENTS)),
        ("sgd", "student-t"),
        ("sign_sgd", "student-t"),
    ],
)
def test_both_sides_stand_beside_their_laws(name, noise, key):
    family = families.family(name)
    oracle = (
        GaussianNoise(PROBLEM, 0.3) if noise == "gaussian" else StudentTNoise(PROBLEM, 0.3, 12.0)
    )
    ensemble = run(family, oracle, key)
    eta = family.learning_rate
    setting = families.Setting(
        oracle, eta, X0, eta / SUBSTEPS, ensemble.time, family.hyperparameters
    )
    laws = family.laws(setting)
    assert off(ensemble, "optimizer", laws.optimizer).max() < BOUND
    if laws.solver is not None:
        assert off(ensemble, "sde", laws.solver).max() < BOUND
        return
    bias = 2 * np.abs(laws.optimizer - laws.sde)[1:]  # Euler-Maruyama's own is of this size
    error = ensemble.standard_error("sde.loss")[1:]
    assert np.all(np.abs(ensemble.mean("sde.loss") - laws.sde)[1:] < BOUND * error + bias)


def test_laws_of_a_vote_with_ties(key):
    family = families.family("dsign_sgd-majority")
    oracle, values = GaussianNoise(PROBLEM, 0.3), {"agents": 4.0}
    pair = family.pair(oracle, 0.05, SUBSTEPS, values)
    ensemble = simulate(
        pair.optimizer, X0, steps=40, paths=20_000, key=key, records=4,
        observables={"optimizer.loss": PROBLEM.loss},
    )  # fmt: skip
    laws = family.laws(families.Setting(oracle, 0.05, X0, 0.025, ensemble.time, values))
    assert off(ensemble, "optimizer", laws.optimizer).max() < BOUND


@pytest.mark.parametrize("name", GAMES)
def test_games_stand_beside_their_laws(name, key):
    family = families.family(name)
    assert family.problem == "quadratic-game"
    oracle = GaussianNoise(QuadraticGame([1.0, 2.0], [0.5, 0.3]), 0.3)
    z0 = Players(np.array([0.5, -0.3], np.float32), np.array([0.2, 0.4], np.float32))
    ensemble = run(family, oracle, key, z0)
    eta = family.learning_rate
    setting = families.Setting(
        oracle, eta, z0, eta / SUBSTEPS, ensemble.time.round(6), family.hyperparameters
    )
    laws = family.laws(setting)
    assert off(ensemble, "optimizer", laws.optimizer).max() < BOUND
    assert off(ensemble, "sde", laws.solver).max() < BOUND
    assert off(ensemble, "sde", laws.optimizer).max() > BOUND or name == "sgda"
    elsewhere = setting._replace(oracle=GaussianNoise(PROBLEM, 0.3), x0=X0)
    assert "none known" in family.laws(elsewhere).about
    on_game = setting._replace(hyperparameters={})
    for other in ("sgd", "sign_sgd", "adam"):
        assert "none known" in families.family(other).laws(on_game).about


@pytest.mark.parametrize("name", ["rmspropw", "adam-l2", "adamw", "adamw-published"])
def test_adaptive_methods_settle_at_their_levels(name, key):
    """Within 1 % beside the error: the fluctuations of v that the law leaves out are of 1 - β₂."""
    family = families.family(name)
    shifted = Quadratic([1.0, 2.5], [0.2, -0.1])  # decay draws x away from the minimiser
    oracle = GaussianNoise(shifted, 0.3)
    ensemble = run(family, oracle, key, steps=400, paths=20_000)
    eta = family.learning_rate
    setting = families.Setting(
        oracle, eta, X0, eta / SUBSTEPS, ensemble.time, family.hyperparameters
    )
    laws = family.laws(setting)
    for side, level in (("optimizer", laws.optimizer), ("sde", laws.solver)):
        mean, error = (getattr(ensemble, m)(f"{side}.loss")[-1] for m in ("mean", "standard_error"))
        assert abs(mean - level) < BOUND * error + 0.01 * level
    # The bound is no wider than what tells the forms apart where they differ.
    if name == "adamw-published":
        assert abs(laws.optimizer - laws.solver) > 0.02 * laws.optimizer


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_families_without_laws_step_and_say_so(name):
    family = families.family(name)
    oracle = GaussianNoise(PROBLEM, 0.3)
    pair = family.pair(oracle, family.learning_rate, SUBSTEPS)
    assert float(pair.dt) == pytest.approx(family.step(family.learning_rate))
    draw = jax.tree.map(lambda draw: jax.numpy.zeros(draw.shape), pair.noise(X0), is_leaf=is_draw)
    state = pair.init(jax.numpy.asarray(X0), draw)
    after = jax.eval_shape(pair.step, 0, state, draw)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    setting = families.Setting(
        oracle, family.learning_rate, X0, 0.1, np.ones(1), family.hyperparameters
    )
    assert "none known" in family.laws(setting).about


def test_hyperparameters_reach_both_sides(key):
    family = families.family("adamw")
    pair = family.pair(GaussianNoise(PROBLEM, 0.3), 0.01, 1, {"b1": 0.5}, warm_up=3)
    assert pair.optimizer.hyperparameters["b1"] == 0.5
    assert pair.sde.sde.b1 == 0.5
    assert pair.sde.sde.weight_decay == 0.5
    assert pair.warm_up == 3
    with pytest.raises(InputError, match="unknown hyperparameter 'b3'; did you mean b"):
        family.pair(GaussianNoise(PROBLEM, 0.3), 0.01, 1, {"b3": 0.5})


def test_stationary_levels_of_a_logistic_regression(key):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 3))
    labels = (features @ [1.0, -1.0, 0.5] + rng.logistic(size=40)) > 0
    problem = LogisticRegression(features, labels, 0.1)
    oracle = GaussianNoise(problem, 0.2)
    start = np.asarray(problem.minimizer(), np.float32)
    accuracies = {
        "sgd": 0.01, "sign_sgd": 0.04, "adam": 0.04, "dcsgd-random-k": 0.02, "dsign_sgd": 0.04
    }  # fmt: skip
    for name, accuracy in accuracies.items():
        family = families.family(name)
        eta = family.learning_rate
        optimizer = family.pair(oracle, eta, SUBSTEPS).optimizer
        ensemble = simulate(
            optimizer, start, steps=400, paths=1500, key=key, records=1,
            observables={"loss": problem.loss},
        )  # fmt: skip
        setting = families.Setting(
            oracle, eta, start, eta / SUBSTEPS, ensemble.time, family.hyperparameters
        )
        laws, least = family.laws(setting), float(problem.loss(start))
        error = ensemble.standard_error("loss")[-1]
        excess = ensemble.mean("loss")[-1] - least
        assert abs(excess - (laws.optimizer - least)) < BOUND * error + accuracy * excess


def test_no_law_where_none_is_known():
    setting = families.Setting(StudentTNoise(PROBLEM, 0.3, 1.0), 0.1, X0, 0.1, np.array([0.0, 1.0]))
    assert families.family("sgd").laws(setting)[:3] == (None, None, None)
    rosenbrock = GaussianNoise(named("rosenbrock").make(), 0.3)
    setting = setting._replace(oracle=rosenbrock)
    for name in set(families.FAMILIES) - set(GAMES):
        family = families.family(name)
        laws = family.laws(setting._replace(hyperparameters=family.hyperparameters))
        assert laws[:3] == (None, None, None)
        assert "none known" in laws.about
    regression = named("breast-cancer").make()
    batches = setting._replace(oracle=MinibatchNoise(regression, 8), x0=np.zeros(31, np.float32))
    assert "none known" in families.family("sgd").laws(batches).about
    unstable = setting._replace(
        oracle=GaussianNoise(regression, 0.1),
        learning_rate=99.0,
        dt=99.0,
        x0=np.zeros(31, np.float32),
    )
    assert "unstable" in families.family("sgd").laws(unstable).about


@pytest.mark.parametrize(
    ("name", "agents", "most"),
    [
        ("sign_sgd", None, "10,000"),
        ("dsign_sgd", 4.0, "3,162"),
        ("dsign_sgd-majority", 11.0, "10,000"),
        ("dsign_sgd-majority", 12.0, "5,773"),
    ],
)
def test_lattice_laws_that_take_too_long_say_how_far_they_go(name, agents, most):
    """N (N + 1)/2 K² products; a vote has one outcome beside the first, two where ties are."""
    values = {} if agents is None else {"agents": agents}
    setting = families.Setting(
        GaussianNoise(PROBLEM, 0.3), 0.1, X0, 0.1, np.array([0.0, 1500.0]), values
    )
    assert f"too long beyond {most} steps" in families.family(name).laws(setting).about


@pytest.mark.parametrize("name", NAMED)
def test_named_problems_are_whole(name):
    problem = named(name).make()
    x0 = named(name).start(problem)
    for leaf in jax.tree.leaves(jax.jit(lambda x: problem.gradient(x))(x0)):
        assert np.all(np.isfinite(leaf))
        assert leaf.dtype == np.float32


def test_unknown_names_bring_the_nearest():
    with pytest.raises(InputError, match="did you mean sign_sgd"):
        families.family("signsgd")
    with pytest.raises(InputError, match="did you mean breast-cancer"):
        named("breast_cancer")
