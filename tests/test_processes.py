import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, Paired, SDEProcess, of_state, simulate
from jaxsde.engine import Draw, Normal, StudentT
from jaxsde.engine.noise import is_draw
from jaxsde.engine.observables import Observable, position
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic, Rosenbrock
from jaxsde.processes import PairedDraw, Sides, Unit
from jaxsde.sdes import SGD, Adam, RMSprop, SignSGD, from_diffrax

H = np.array([2.0, 1.0, 0.5])
X0 = np.array([1.0, -2.0, 0.5])
SIGMA = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.25], [0.0, -0.25, 0.5]])
ETA = 0.1
BROWNIAN = diffrax.UnsafeBrownianPath((3,), jax.random.key(0))


def sgd(oracle, rate=ETA):
    return OptimizerProcess(optax.sgd, {"learning_rate": rate}, oracle)


def run(process, x0=X0, **changes):
    defaults = {"steps": 8, "paths": 64, "key": jax.random.key(3), "records": [2, 8]}
    return simulate(process, x0, **(defaults | changes))


def test_a_step_of_the_process_is_a_step_of_optax(x64):
    oracle = GaussianNoise(Rosenbrock(2.0), covariance=SIGMA)
    optimizer = optax.chain(optax.clip_by_global_norm(3.0), optax.adam(0.1))
    process = OptimizerProcess(optimizer, oracle, 0.1)
    x = jnp.asarray(X0)
    state, inner = process.init(x, None), optimizer.init(x)
    for k, xi in enumerate(np.random.default_rng(0).standard_normal((5, 3))):
        state = process.step(k, state, jnp.asarray(xi))
        root = oracle.covariance_root(x).as_matrix()
        updates, inner = optimizer.update(jax.grad(Rosenbrock(2.0).loss)(x) + root @ xi, inner, x)
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(process.position(state), x, rtol=1e-14)


def test_euler_maruyama_at_the_learning_rate_is_sgd(x64):
    """The two chains are one, so a pair without substeps differs by rounding alone."""
    oracle = GaussianNoise(Quadratic(H, 0.25), [0.5, 1.0, 2.0], batch_size=3)
    pair = Paired(sgd(oracle), SDEProcess(SGD(oracle, ETA), ETA))
    ensemble = run(pair, observables={"x": lambda x: x})
    sides = [ensemble.sample[f"{side}.x"] for side in Sides._fields]
    # Eight steps of at most four units in the last place of the largest numbers on the way.
    bound = 8 * 4 * np.spacing(np.abs(sides[0]).max())
    assert np.max(np.abs(sides[0] - sides[1])) <= bound
    np.testing.assert_array_equal(ensemble.sample["difference.x"], sides[0] - sides[1])
    assert np.std(sides[0][-1]) > 0.1
    assert ensemble.settings["sides"]["optimizer"]["chain"] is not None
    assert (
        ensemble.settings["sides"]["optimizer"]["chain"]
        == ensemble.settings["sides"]["sde"]["chain"]
    )


@pytest.mark.parametrize("substeps", [1, 3])
def test_a_pair_shares_one_brownian_motion(substeps, x64):
    oracle = GaussianNoise(Quadratic(H), covariance=SIGMA)
    sde = SDEProcess(SGD(oracle, ETA), ETA / substeps)
    pair = Paired(sgd(oracle), sde, substeps)
    draws = pair.noise(X0)
    assert draws.own is None
    assert (
        jax.tree.leaves(draws.unit, is_leaf=lambda d: isinstance(d, Draw))
        == [Draw((3,), Normal())] * substeps
    )
    # By hand: the optimizer's normal is the substeps' sum over √s, the SDE takes each.
    rng, A = np.random.default_rng(1), np.diag(H)
    R = np.asarray(oracle.covariance_root(X0).as_matrix())
    x, y, state = X0, X0, None
    for k in range(4):
        xi = rng.standard_normal((substeps, 3))
        unit = tuple(Unit(jnp.asarray(v), []) for v in xi)
        draw = draws._replace(unit=unit)
        state = pair.init(jnp.asarray(X0), draw) if state is None else state
        state = pair.step(k, state, draw)
        x = x - ETA * (A @ x + R @ xi.sum(0) / np.sqrt(substeps))
        for v in xi:
            y = y - ETA / substeps * (A @ y) - np.sqrt(ETA * ETA / substeps) * R @ v
        np.testing.assert_allclose(pair.position(state).optimizer, x, rtol=1e-13)
        np.testing.assert_allclose(pair.position(state).sde, y, rtol=1e-13)


def pair_of(oracle, sde, substeps):
    return Paired(sgd(oracle), SDEProcess(sde(oracle, ETA), ETA / substeps), substeps)


def test_sharing_leaves_the_difference_the_variance_of_a_linear_recursion(x64):
    s, steps, n = 2, 8, 4000
    ensemble = run(
        pair_of(GaussianNoise(Quadratic(H), 1.0), SGD, s), paths=n, observables={"x": lambda x: x}
    )
    # x takes -η(ξ₁ + ξ₂)/√2 a step, y the same noise, ξ₁ damped once more: with a = 1 - ηh and
    # b = 1 - ηh/2 the noise of j steps ago has weight a^j on x's side, b^{2j} (b, 1) on y's.
    a, b, j = 1 - ETA * H, 1 - ETA * H / s, np.arange(steps)[:, None]
    weights = np.stack([a**j - b ** (2 * j + 1), a**j - b ** (2 * j)])
    variance = ETA**2 / 2 * np.sum(weights**2, axis=(0, 1))
    mean = (a**steps - b ** (s * steps)) * X0
    # Three means and three variances of Gaussians: each score beyond 5 with 6e-7.
    assert np.all(np.abs(ensemble.mean("difference.x")[-1] - mean) < 5 * np.sqrt(variance / n))
    ratio = ensemble.variance("difference.x")[-1] / variance
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / (n - 1)))
    total = sum(ensemble.variance(f"{side}.x")[-1] for side in Sides._fields)
    assert np.all(variance < total / 100)  # without sharing the variances would add


def test_student_t_noise_stays_the_optimizers_own():
    pair = pair_of(StudentTNoise(Quadratic(H), 1.0, 3.0), SGD, 2)
    draws = pair.noise(X0)
    assert isinstance(draws.own.law, StudentT)
    assert len(draws.unit) == 2
    n, x0, watched = 2000, X0.astype(np.float32), {"x": lambda x: x}
    ensemble = run(pair, x0, paths=n, steps=2, records=[2], observables=watched)
    # Signs bound the correlation of heavy tails; 3 scores, each beyond 5 with 6e-7.
    sides = [ensemble.sample[f"{side}.x"][-1] for side in Sides._fields]
    signs = [np.sign(side - np.median(side, axis=-1, keepdims=True)) for side in sides]
    assert np.all(np.abs(np.mean(signs[0] * signs[1], axis=-1)) < 5 / np.sqrt(n))


def test_a_pairs_observables_are_seen_on_both_sides():
    pair = pair_of(GaussianNoise(Quadratic(H), 1.0), SGD, 2)
    watched = {"norm": jnp.linalg.norm, "both": of_state(lambda s: s.optimizer.x + s.sde.X)}
    ensemble = run(pair, X0.astype(np.float32), observables=watched)
    sides = ["optimizer.norm", "sde.norm", "difference.norm"]
    assert set(ensemble.names) == {*sides, "both"}
    a, b, difference = (ensemble.sample[name] for name in sides)
    np.testing.assert_allclose(difference, a - b, atol=1e-6)
    names = {f"{side}.{name}" for side in (*Sides._fields, "difference") for name in ("loss", "x")}
    assert set(pair.lift({"x": Observable(position)} | offered(pair))) == names


def offered(process):
    return {name: Observable(fn) for name, fn in process.observables().items()}


def test_the_sdes_clock_runs_on_through_the_substeps(x64):
    # dX = t dt from t0 = 1, which Euler-Maruyama sums to Σ (1 + m dt) dt over the substeps m.
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: t * jnp.ones(3)),
        diffrax.ControlTerm(
            lambda t, y, args: lx.DiagonalLinearOperator(jnp.zeros(3)),
            diffrax.UnsafeBrownianPath((3,), jax.random.key(0)),
        ),
    )
    oracle, s, steps = GaussianNoise(Quadratic(H), 1.0), 3, 4
    pair = Paired(sgd(oracle), SDEProcess(from_diffrax(terms, t0=1.0), ETA / s), s)
    draw = PairedDraw((Unit(jnp.zeros(3), []),) * s, None)
    state = pair.init(jnp.asarray(X0), draw)
    for k in range(steps):
        state = pair.step(k, state, draw)
    m = np.arange(s * steps)
    known = X0 + np.sum((1 + m * ETA / s) * ETA / s)
    np.testing.assert_allclose(pair.position(state).sde, known, rtol=1e-13)
    assert (pair.t0, float(pair.dt)) == (1.0, ETA)


def test_a_warm_up_hands_the_optimizers_state_over(x64):
    """Equal on both sides until k₀, then the SDE's own steps from the time k₀ η."""
    oracle, k0, substeps = GaussianNoise(Quadratic(H), 0.5), 3, 2
    hyperparameters = {"learning_rate": ETA, "b1": 0.8, "b2": 0.9}
    optimizer = OptimizerProcess(optax.adam, hyperparameters, oracle)
    sde = SDEProcess(Adam(oracle, **hyperparameters), ETA / substeps)
    pair = Paired(optimizer, sde, substeps, warm_up=k0)
    rng = np.random.default_rng(5)

    def draws(xi):
        return PairedDraw(tuple(Unit(x, []) for x in xi), None)

    paired_step, optimizer_step = (
        jax.jit(lambda k, y, draw, side=side: side.step(k, y, draw)) for side in (pair, optimizer)
    )
    euler = jax.jit(lambda t, y, xi: sde.scheme.step(sde.sde, t, y, ETA / substeps, xi))
    state = pair.init(jnp.asarray(X0), draws(np.zeros((substeps, 3))))
    own, its = optimizer.init(jnp.asarray(X0), None), None
    for k in range(6):
        xi = rng.standard_normal((substeps, 3))
        draw = draws(xi)
        state = paired_step(k, state, draw)
        own = optimizer_step(k, own, sum(xi) / np.sqrt(substeps))
        if k < k0:
            its = sde.sde.resumed(own.x, own.inner)
        else:
            for i, u in enumerate(xi):
                its = euler((k + i / substeps) * ETA, its, u)
        np.testing.assert_allclose(state.optimizer.x, own.x, rtol=1e-13)
        for ours, expected in zip(state.sde, its, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-11)
        assert np.array_equal(state.sde.X, state.optimizer.x) == (k < k0)


def test_an_sde_that_starts_late_is_warmed_up_on_the_optimizers_clock(key):
    oracle = GaussianNoise(Quadratic(H), 0.5)
    optimizer = OptimizerProcess(optax.adam, {"learning_rate": ETA}, oracle)
    published = SDEProcess(Adam(oracle, ETA, published=True), ETA)
    start = X0.astype(np.float32)
    ensemble = run(Paired(optimizer, published), start, key=key, records=[0, 1, 2, 8])
    np.testing.assert_allclose(ensemble.time, ETA * np.array([0, 1, 2, 8]), rtol=1e-6)
    difference = np.sqrt(ensemble.variance("difference.loss"))
    np.testing.assert_array_equal(difference[:2], 0)
    assert np.all(difference[2:] > 1e-4)


def test_an_order_two_sde_shares_its_first_brownian_motion():
    oracle = GaussianNoise(Quadratic(H), 0.5)
    optimizer = OptimizerProcess(optax.rmsprop, {"learning_rate": ETA}, oracle)
    pair = Paired(optimizer, SDEProcess(RMSprop(oracle, ETA, order=2), ETA / 2), 2)
    draws = pair.noise(X0)
    assert draws.own is None
    values = tuple(Unit(jnp.full(3, i + 1.0), [jnp.full(3, 9.0)]) for i in range(2))
    assert jax.tree.structure(values) == jax.tree.structure(draws.unit, is_leaf=is_draw)
    got = pair.optimizer_draw(PairedDraw(values, None))
    np.testing.assert_allclose(got, 3 / np.sqrt(2))
    W, B = pair.sde_draw(X0, values[1])
    np.testing.assert_array_equal([W, B], [np.full(3, 2.0), np.full(3, 9.0)])


@pytest.mark.parametrize(
    ("sde", "warm_up", "message"),
    [
        (lambda o: Adam(o, ETA, published=True, t0=3 * ETA), 2, "3 steps late.*at least as many"),
        (lambda o: from_diffrax(SGD(o, ETA).terms(BROWNIAN)), 2, "cannot take over.*without"),
        (lambda o: SGD(o, ETA), -1, "warm_up must be a whole number"),
    ],
)
def test_impossible_warm_ups_are_refused(sde, warm_up, message):
    oracle = GaussianNoise(Quadratic(H), 0.5)
    with pytest.raises(InputError, match=message):
        Paired(sgd(oracle), SDEProcess(sde(oracle), ETA), warm_up=warm_up)


def test_clocks_that_disagree_are_refused():
    oracle = GaussianNoise(Quadratic(H), 1.0)
    for dt, substeps in ((ETA, 2), (ETA / 3, 2), (1.01 * ETA, 1)):
        with pytest.raises(InputError, match="the SDE's dt must be the optimizer's over substeps"):
            Paired(sgd(oracle), SDEProcess(SGD(oracle, ETA), dt), substeps)
    with pytest.raises(InputError, match="substeps must be a whole number"):
        Paired(sgd(oracle), SDEProcess(SGD(oracle, ETA), ETA), 0)


def gets_everything():
    """x⁺ = x + (f(x), f(0), |g - grad|, f'(2x)), one number a coordinate."""

    def update(g, state, params, *, value, grad, value_fn, grad_fn, **extra):
        zero, twice = jnp.zeros_like(params), 2 * params
        seen = [value, value_fn(zero), jnp.sum(jnp.abs(g - grad)), grad_fn(twice)[0]]
        return jnp.stack([*seen, grad_fn(twice, 0)[0], g[0]]), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_a_transformation_gets_value_and_gradient_functions_of_the_steps_draw(x64):
    oracle = GaussianNoise(Quadratic(np.arange(1.0, 7), 0.5), 2.0)
    process = OptimizerProcess(gets_everything(), oracle, ETA)
    x, xi = jnp.arange(6.0), np.arange(6.0) + 7
    after = process.step(0, process.init(x, None), jnp.asarray(xi))
    hessian = np.arange(1.0, 7)
    loss = np.sum(hessian * (np.arange(6) - 0.5) ** 2) / 2
    at_zero, noise = np.sum(hessian * 0.25) / 2, 2 * xi[0]
    gradients = [-0.5 + noise, -0.5 + noise]  # ∇f₀(0) = ∇f₀(2 x₀) = -1/2 at x₀ = 0
    known = [loss, at_zero, 0, gradients[0], gradients[0], gradients[1]]
    np.testing.assert_allclose(process.position(after) - x, known, rtol=1e-14)


def keeps(key):
    """A transformation whose state is a key, as JAX's old style or its new one has it."""
    return optax.GradientTransformation(lambda params: {"key": key}, lambda g, state, x: (g, state))


@pytest.mark.parametrize(
    "transformation",
    [optax.add_noise(0.1, 0.5, key=1), keeps(jax.random.key(0)), keeps(jax.random.PRNGKey(0))],
    ids=["add_noise", "typed", "raw"],
)
def test_a_random_key_in_the_optimizer_is_refused(transformation):
    noisy = optax.chain(transformation, optax.sgd(0.1))
    process = OptimizerProcess(noisy, GaussianNoise(Quadratic(H), 1.0), 0.1)
    with pytest.raises(InputError, match=r"keeps a random key in its state\[0\].*same noise"):
        run(process, X0.astype(np.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: OptimizerProcess(optax.sgd, {}, o), "must hold a number 'learning_rate'"),
        (
            lambda o: OptimizerProcess(
                optax.sgd, {"learning_rate": optax.constant_schedule(0.1)}, o
            ),
            "for a schedule pass",
        ),
        (lambda o: sgd(o, -0.1), "learning_rate must be positive"),
        (lambda o: sgd(o, np.inf), "learning_rate must be positive and finite"),
        (lambda o: OptimizerProcess(optax.sgd(0.1), o, 0.0), "dt must be positive"),
        (lambda o: SDEProcess(SGD(o, ETA), 0.0), "dt must be positive"),
        (lambda o: SDEProcess(SGD(o, ETA), np.nan), "dt must be positive"),
    ],
)
def test_processes_without_a_clock_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(GaussianNoise(Quadratic(H), 1.0))


def test_a_chain_is_named_only_where_it_is_sgd_with_gaussian_noise():
    gaussian, heavy = GaussianNoise(Quadratic(H), 1.0), StudentTNoise(Quadratic(H), 1.0, 3.0)
    name = sgd(gaussian).settings()["chain"]
    assert name == SDEProcess(SGD(gaussian, ETA), ETA).settings()["chain"] is not None
    others = [
        sgd(gaussian, 0.2),
        sgd(GaussianNoise(Quadratic(H), 1.5)),
        sgd(heavy),
        OptimizerProcess(optax.sgd, {"learning_rate": ETA, "momentum": 0.9}, gaussian),
        OptimizerProcess(optax.adam, {"learning_rate": ETA}, gaussian),
        SDEProcess(SGD(gaussian, ETA), ETA / 2),
        SDEProcess(SGD(gaussian, ETA, order=2), ETA),
        SDEProcess(SignSGD(gaussian, ETA), ETA),
    ]
    assert all(process.settings()["chain"] != name for process in others)


def test_extras_reach_only_the_updates_that_name_them(key):
    problem = Quadratic([1.0, 3.0])
    oracle = GaussianNoise(problem, 1e-6)

    def run(optimizer):
        process = OptimizerProcess(optimizer, oracle, 0.1)
        return simulate(process, np.ones(2, np.float32), steps=6, paths=16, key=key, records=[6])

    sam = optax.contrib.sam(optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)))
    for optimizer in (sam, optax.lbfgs(0.1)):
        assert run(optimizer).mean("loss")[-1] < 1.9  # from 2


def on_draws(*indices):
    """x⁺ = x + (the gradients at x on these draws, first coordinates)."""

    def update(g, state, params, *, grad_fn):
        return jnp.stack([grad_fn(params, i)[0] for i in indices]), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_a_step_has_as_many_draws_as_its_update_asks_for(x64):
    oracle = GaussianNoise(Quadratic([1.0, 3.0, 5.0]), 2.0)
    process = OptimizerProcess(on_draws(2, 0, None), oracle, ETA)
    x = jnp.array([1.0, 2.0, 3.0])
    draws = jax.tree.leaves(process.noise(x), is_leaf=is_draw)
    assert [draw.shape for draw in draws] == [(3,)] * 3
    xi = jnp.arange(9.0).reshape(3, 3)
    after = process.step(0, process.init(x, None), type(process.noise(x))(tuple(xi)))
    np.testing.assert_allclose(process.position(after) - x, [1 + 2 * 6, 1 + 2 * 0, 1])


@pytest.mark.parametrize("index", [-1, 0.5, True, "0"])
def test_a_draw_is_asked_for_by_its_number(index):
    process = OptimizerProcess(on_draws(index, 0), GaussianNoise(Quadratic([1.0, 2.0]), 1.0), ETA)
    with pytest.raises(InputError, match="takes the number of a draw"):
        process.noise(jnp.ones(2))


def test_the_two_sides_share_the_learning_rate():
    oracle = GaussianNoise(Quadratic([1.0]), 0.1)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle)
    with pytest.raises(InputError, match="is of learning rate"):
        Paired(optimizer, SDEProcess(SGD(oracle, 0.3), 0.1))


def test_events_are_observables_of_a_pair(key):
    oracle = GaussianNoise(Quadratic([1.0]), 1.0)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle)
    pair = Paired(optimizer, SDEProcess(SGD(oracle, 0.1), 0.05), 2)
    run = simulate(
        pair, np.zeros(1, np.float32), steps=10, paths=64, key=key, records=[10],
        observables={"up": lambda x: x[0] > 0},
    )  # fmt: skip
    sides = run.mean("optimizer.up") - run.mean("sde.up")
    np.testing.assert_allclose(run.mean("difference.up"), sides, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((optax.sgd, GaussianNoise(Quadratic([1.0]), 1.0), 0.1), "OptimizerProcess takes"),
        ((optax.sgd(0.1), lambda x: x, 0.1), "is no jaxsde.oracles.Oracle"),
        ((optax.sgd(0.1), GaussianNoise(Quadratic([1.0]), 1.0), [0.1, 0.2]), "must be one number"),
        ((optax.sgd(0.1), GaussianNoise(Quadratic([1.0]), 1.0), 1e-60), "positive and finite"),
    ],
)
def test_wrong_arguments_say_so(arguments, message):
    with pytest.raises(InputError, match=message):
        OptimizerProcess(*arguments)


def test_misspelt_hyperparameters_say_so():
    oracle = GaussianNoise(Quadratic([1.0]), 1.0)
    with pytest.raises(InputError, match="momentun"):
        OptimizerProcess(optax.sgd, {"learning_rate": 0.1, "momentun": 0.9}, oracle)
