"""Where the loss settles, and what bounds it: four methods, published and corrected."""

import numpy as np
import pytest
import scipy.linalg

from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive, sign
from jaxsde.theory import gradient_descent as gd

ETA = 0.01


def sde_loss(hessian, pull, decay=0.0, l2=0.0):
    """E f for dX = -(pull (H X + l2 X) + decay X) dt + √η dW, by the Lyapunov equation."""
    eye = np.eye(len(hessian))
    drift = pull * (hessian + l2 * eye) + decay * eye
    covariance = scipy.linalg.solve_continuous_lyapunov(drift, ETA * eye)
    return np.trace(hessian @ covariance) / 2


def rotated(eigenvalues):
    Q = scipy.linalg.qr(np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0], [2.0, -1.0, 1.0]]))[0]
    return Q @ np.diag(eigenvalues) @ Q.T


def bound_constants(eigenvalues):
    return {
        "learning_rate": ETA,
        "mu": min(eigenvalues),
        "smoothness": max(eigenvalues),
        "hessian_trace": sum(eigenvalues),
    }


@pytest.mark.parametrize("decay", [{}, {"weight_decay": 0.7}, {"l2_regularization": 0.7}])
@pytest.mark.parametrize(("sigma", "B"), [(0.5, 1), (2.0, 16), (3.0, 0.25)])
def test_loss_level_is_reached_by_isotropic_quadratics_and_bounds_the_others(decay, sigma, B):
    args = decay.get("weight_decay", 0.0), decay.get("l2_regularization", 0.0)
    isotropic, spread = [3.0, 3.0, 3.0], [1.0, 4.0, 10.0]
    noise = {"sigma": sigma, "batch_size": B} | decay
    level = adaptive.loss_level(**bound_constants(isotropic), **noise)
    assert level == pytest.approx(sde_loss(rotated(isotropic), np.sqrt(B) / sigma, *args))
    level = adaptive.loss_level(**bound_constants(spread), **noise)
    assert level > 1.5 * sde_loss(rotated(spread), np.sqrt(B) / sigma, *args)


def test_loss_levels_as_printed():
    """Equations 5 and 6 of the poster, with L_τ = L d."""
    mu, L, d, sigma, B, theta = 0.5, 2.0, 3, 1.5, 9.0, 0.4
    constants = {"learning_rate": ETA, "mu": mu, "smoothness": L, "hessian_trace": L * d}
    constants |= {"sigma": sigma, "batch_size": B, "published": True}
    share = theta * (L + mu) / (2 * mu * L)
    level = ETA * L * d / (4 * mu)
    decoupled = adaptive.loss_level(**constants, weight_decay=theta)
    assert decoupled == pytest.approx(level * sigma / (np.sqrt(B) + sigma * share), rel=1e-12)
    coupled = adaptive.loss_level(**constants, l2_regularization=theta)
    assert coupled == pytest.approx(level * sigma / (np.sqrt(B) + share), rel=1e-12)


def test_the_printed_level_of_l2_is_loose_for_batches_and_false_below_one():
    """Isotropic, where the corrected level is exact."""
    H, sigma = rotated([1.0, 1.0, 1.0]), 2.0
    constants = bound_constants([1.0, 1.0, 1.0]) | {"sigma": sigma, "published": True}
    ratios = []
    for B in (0.25, 1.0, 4.0, 16.0):
        printed = adaptive.loss_level(**constants, batch_size=B, l2_regularization=1.6)
        ratios.append(sde_loss(H, np.sqrt(B) / sigma, l2=1.6) / printed)
    np.testing.assert_allclose(ratios, [1.615, 1, 0.692, 0.538], atol=1e-3)


def test_only_decoupled_decay_bounds_the_level_for_all_noise():
    constants = bound_constants([1.0, 4.0]) | {"sigma": np.array([1e4, 1e8])}
    saturated = adaptive.loss_level(**constants, weight_decay=0.5)
    np.testing.assert_allclose(saturated, ETA * 5 / (2 * 0.5 * (1 + 1 / 4)), rtol=1e-3)
    for decay in ({}, {"l2_regularization": 0.5}):
        level = adaptive.loss_level(**constants, **decay)
        assert level[1] / level[0] == pytest.approx(1e4)


def test_levels_of_the_four_methods_by_one_call():
    """Against their isotropic Lyapunov equations: noise √η σ/√B for SGD, √η for the others."""
    H, mu = rotated([3.0, 3.0, 3.0]), 3.0
    sigma, B = np.array([0.5, 1.0, 4.0])[:, None], np.array([1.0, 16.0])
    call = {"learning_rate": ETA, "mu": mu, "hessian_trace": 9.0, "sigma": sigma, "batch_size": B}
    levels = [gd.loss_level(**call), sign.loss_level(**call), adaptive.loss_level(**call)]
    assert [level.shape for level in levels] == [(3, 2)] * 3
    for i, s in enumerate(sigma[:, 0]):
        for j, b in enumerate(B):
            pull = np.sqrt(b) / s
            expected = [
                sde_loss(H, 1.0) / pull**2,
                sde_loss(H, np.sqrt(2 / np.pi) * pull),
                sde_loss(H, pull),
            ]
            np.testing.assert_allclose([level[i, j] for level in levels], expected, rtol=1e-12)
    printed = sign.loss_level(**call, published=True)
    np.testing.assert_allclose(levels[1] / printed, 1.2533141373, rtol=1e-10)


def test_bounds_settle_at_the_levels():
    constants = {"learning_rate": ETA, "mu": 0.5, "sigma_max": 1.5, "batch_size": 4}
    level = {"learning_rate": ETA, "mu": 0.5, "sigma": 1.5, "batch_size": 4, "hessian_trace": 6.0}
    late = gd.loss_bound(2.0, 1e3, hessian_trace=6.0, **constants)
    assert late == pytest.approx(gd.loss_level(**level), rel=1e-12)
    for published in (False, True):
        late = sign.phase3_leading_loss_bound(
            2.0, 1e3, smoothness=2.0, dimension=3, published=published, **constants
        )
        assert late == pytest.approx(sign.loss_level(**level, published=published), rel=1e-12)


def test_minimisers_away_from_zero_exceed_the_level():
    """Decay pins x at 0, whatever the noise: E S tends to f(0) - f* and noise."""
    problem, constants = Quadratic(np.array([1.0]), 1.0), bound_constants([1.0])
    for sigma in (1.0, 30.0):
        loss = adaptive.stationary_loss(problem, sigma**2, ETA, weight_decay=0.5)
        level = adaptive.loss_level(**constants, sigma=sigma, weight_decay=0.5)
        assert loss > 10 * level
        centred = adaptive.stationary_loss(Quadratic(np.ones(1)), sigma**2, ETA, weight_decay=0.5)
        assert centred == pytest.approx(level, rel=1e-12)
    loss = adaptive.stationary_loss(problem, 1e12, ETA, weight_decay=0.5)
    assert loss == pytest.approx(0.5 + ETA / 2 / 0.5 / 2, rel=1e-5)


def test_bad_levels_are_refused():
    constants = bound_constants([1.0, 2.0]) | {"sigma": 1.0}
    for name in constants:
        with pytest.raises(InputError, match=f"{name} must be positive"):
            adaptive.loss_level(**(constants | {name: 0.0}), weight_decay=1.0)
    with pytest.raises(InputError, match="batch_size"):
        adaptive.loss_level(**constants, batch_size=-1)
    for name in ("weight_decay", "l2_regularization"):
        with pytest.raises(InputError, match=name):
            adaptive.loss_level(**constants, **{name: -0.1})
    with pytest.raises(InputError, match="one decay"):
        adaptive.loss_level(**constants, weight_decay=0.1, l2_regularization=0.1)
    with pytest.raises(InputError, match="smoothness is needed"):
        adaptive.loss_level(**(constants | {"smoothness": None}), weight_decay=0.1)
    with pytest.raises(InputError, match="at least mu"):
        adaptive.loss_level(**(constants | {"smoothness": 0.5}), weight_decay=0.1)
    del constants["smoothness"]
    for level in (gd.loss_level, sign.loss_level, adaptive.loss_level):
        for name in constants:
            with pytest.raises(InputError, match=f"{name} must be positive"):
                level(**(constants | {name: -1.0}))
        with pytest.raises(InputError, match="batch_size must be positive"):
            level(**constants, batch_size=0)
