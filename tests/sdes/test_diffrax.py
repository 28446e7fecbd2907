import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsde import InputError, SDEProcess, simulate
from jaxsde.engine import EulerMaruyama
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SGD, SignSGD, State, from_diffrax

H = np.array([[2.0, -0.5, 0.25], [-0.5, 1.0, 0.0], [0.25, 0.0, 0.5]])
SIGMA = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.25], [0.0, -0.25, 0.5]])
X0 = np.array([1.0, -2.0, 0.5])
DT, STEPS = 0.05, 16
XI = np.random.default_rng(4).standard_normal((STEPS, 3))


class Replay(diffrax.AbstractBrownianPath):
    """A Brownian path whose increments over steps of DT are given."""

    increments: object
    shape: object = eqx.field(static=True)
    levy_area: type = eqx.field(static=True, default=diffrax.BrownianIncrement)

    @property
    def t0(self):
        return 0.0

    @property
    def t1(self):
        return STEPS * DT

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        k = jnp.round(t0 / DT).astype(int)
        dW = jax.tree.map(lambda w: w[k], self.increments)
        return diffrax.BrownianIncrement(dt=t1 - t0, W=dW) if use_levy else dW


def by_diffrax(terms, y0):
    times = DT * np.arange(STEPS + 1)
    solution = diffrax.diffeqsolve(
        terms, diffrax.Euler(), 0.0, STEPS * DT, None, y0,
        stepsize_controller=diffrax.StepTo(ts=times),
        saveat=diffrax.SaveAt(ts=times), max_steps=STEPS, adjoint=diffrax.DirectAdjoint(),
    )  # fmt: skip
    return solution.ys


def by_process(sde, increments):
    """The process's steps on given unit normals, without the engine."""
    process = SDEProcess(sde, DT)

    def step(state, k):
        state = process.step(k, state, jax.tree.map(lambda xi: xi[k], increments))
        return state, process.position(state)

    return jax.jit(lambda: jax.lax.scan(step, process.init(X0, None), jnp.arange(STEPS))[1])()


SDES = {
    "SGD with full covariance": lambda: SGD(
        GaussianNoise(Quadratic(H, 0.5), covariance=SIGMA), 0.1, order=2
    ),
    "SignSGD": lambda: SignSGD(GaussianNoise(Quadratic(H), [0.5, 1.0, 2.0]), 0.1),
}


@pytest.mark.parametrize("name", SDES)
def test_diffrax_on_the_same_increments_takes_the_same_path(name, x64):
    sde = SDES[name]()
    structure = sde.brownian_structure(jnp.asarray(X0))
    treedef = jax.tree.structure(structure)
    replay = Replay(treedef.unflatten([np.sqrt(DT) * XI]), structure)
    theirs = by_diffrax(sde.terms(replay), sde.initial(jnp.asarray(X0)))
    ours = by_process(sde, treedef.unflatten([jnp.asarray(XI)]))
    np.testing.assert_array_equal(theirs.X[0], X0)
    np.testing.assert_allclose(ours, theirs.X[1:], rtol=1e-12, atol=1e-13)
    assert np.ptp(ours[:, 0]) > 0.1


def drift(t, y, args):
    return State(-(jnp.asarray(H, y.X.dtype) @ (y.X - 0.5)))


ROOT = np.linalg.cholesky(SIGMA)


def terms_of_sgd(dtype):
    """SGD's order-1 SDE at η = 0.1 as a user of diffrax would write it, in two control terms."""
    root = -np.sqrt(0.1) * jnp.asarray(ROOT, dtype)

    def control(fn, shape):
        operator = lx.FunctionLinearOperator(fn, jax.ShapeDtypeStruct(shape, dtype))
        brownian = diffrax.UnsafeBrownianPath(shape, jax.random.key(0))
        return diffrax.ControlTerm(lambda t, y, args: operator, brownian)

    one = control(lambda dW: State(root[:, 0] * dW), ())
    two = control(lambda dW: State(root[:, 1:] @ dW), (2,))
    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.MultiTerm(one, two))


def test_terms_of_diffrax_have_the_same_coefficients(x64):
    sde = from_diffrax(terms_of_sgd(jnp.float64), initial=State, position=lambda y: y.X, t0=2.0)
    assert sde.t0 == 2
    y = sde.initial(jnp.asarray(X0))
    known = SGD(GaussianNoise(Quadratic(H, 0.5), covariance=SIGMA), 0.1)
    np.testing.assert_allclose(sde.drift(0, y, None).X, known.drift(0, y, None).X, rtol=1e-14)
    assert [leaf.shape for leaf in jax.tree.leaves(sde.brownian_structure(X0))] == [(), (2,)]
    diffusion = sde.diffusion(0, y, None)
    s = np.stack(
        [diffusion.mv((jnp.asarray(e[0]), jnp.asarray(e[1:]))).X for e in np.eye(3)], axis=1
    )
    np.testing.assert_allclose(s, -np.sqrt(0.1) * ROOT, rtol=1e-14)
    np.testing.assert_array_equal(sde.position(y), X0)


def test_diffrax_terms_of_sgd_run_as_sgd_itself():
    h, sigma, x0 = np.array([2.0, 1.0, 0.5]), 0.75, X0.astype(np.float32)
    sde = SGD(GaussianNoise(Quadratic(h), sigma), 0.1)
    terms = sde.terms(diffrax.UnsafeBrownianPath(sde.brownian_structure(x0), jax.random.key(0)))
    theirs = from_diffrax(terms, initial=State, position=lambda y: y.X)
    settings = {"steps": 6, "paths": 20, "key": jax.random.key(1), "records": [2, 6]}
    settings["observables"] = {"x": lambda x: x}
    ours = simulate(SDEProcess(sde, DT), x0, **settings).sample["x"]
    found = simulate(SDEProcess(theirs, DT), x0, **settings).sample["x"]
    np.testing.assert_allclose(found, ours, rtol=1e-6, atol=1e-6)
    # And both are Euler-Maruyama: undo the steps' noise with the moments of an exact recursion.
    # Var x₆ = η σ² dt Σ (1 - h dt)^{2j}; 60 values, the score beyond 5 with 6e-7.
    spread = 0.1 * sigma**2 * DT * np.sum((1 - h * DT) ** (2 * np.arange(6)[:, None]), axis=0)
    mean = (1 - h * DT) ** 6 * x0
    scores = np.mean((found[-1] - mean[:, None]) / np.sqrt(spread)[:, None]) * np.sqrt(60)
    assert abs(scores) < 5


def test_an_ode_term_alone_or_another_control_is_refused():
    ode = diffrax.ODETerm(drift)
    with pytest.raises(InputError, match="needs a term driven by a Brownian path"):
        from_diffrax(ode)
    ramp = diffrax.LinearInterpolation(jnp.arange(2.0), jnp.arange(2.0))
    control = diffrax.ControlTerm(lambda t, y, args: y, ramp)
    with pytest.raises(InputError, match="got ControlTerm"):
        from_diffrax(diffrax.MultiTerm(ode, control))


def test_no_drift_is_a_drift_of_zero():
    brownian = diffrax.UnsafeBrownianPath((), jax.random.key(0))
    sde = from_diffrax(diffrax.ControlTerm(lambda t, y, args: y, brownian))
    np.testing.assert_array_equal(sde.drift(0, jnp.ones(3), None), 0)


def test_euler_maruyama_is_its_formula(x64):
    class Affine(eqx.Module):
        def drift(self, t, y, args):
            return t - y

        def diffusion(self, t, y, args):
            return lx.DiagonalLinearOperator(1 + y**2)

    y, xi = jnp.array([0.5, 2.0]), jnp.array([1.0, -0.5])
    found = EulerMaruyama().step(Affine(), 3.0, y, 0.25, xi)
    np.testing.assert_allclose(found, y + (3 - y) * 0.25 + (1 + y**2) * 0.5 * xi, rtol=1e-15)
    assert (EulerMaruyama.weak_order, EulerMaruyama.strong_order) == (1, 0.5)


def test_args_reach_the_terms_and_are_hyperparameters():
    brownian = diffrax.UnsafeBrownianPath((2,), jax.random.key(0))
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: -args["rate"] * y),
        diffrax.ControlTerm(
            lambda t, y, args: lx.DiagonalLinearOperator(args["noise"] * jnp.ones(2)), brownian
        ),
    )
    sde = from_diffrax(terms, args={"rate": jnp.asarray(3.0), "noise": jnp.asarray(0.5)})
    y = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(sde.drift(0.0, y, None), [-3.0, 6.0])
    np.testing.assert_allclose(sde.diffusion(0.0, y, None).mv((jnp.ones(2),)), [0.5, 0.5])
    assert len(jax.tree.leaves(eqx.filter(sde.args, eqx.is_array))) == 2
