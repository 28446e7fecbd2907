import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.theory.backward_equation import expectation
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

ATOMS, WEIGHTS = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1, 4, 1]) / 6
STARTS = np.array([[0.5, -0.2], [-0.3, 0.4]])
B = np.array([[-1.0, 0.7], [-0.4, -0.5]])
S = np.array([[0.3, 0.1], [0.1, 0.2]])
DOMAIN = [(-2, 2), (-3, 3)]


def moments(y):
    """x₁, x₁² and x₁ x₂."""
    return np.stack([y[:, 0], y[:, 0] ** 2, y[:, 0] * y[:, 1]], axis=-1)


def gaussian(mean, covariance):
    """Their expectations."""
    second = mean[:, 0, None] * mean + covariance[0]
    return np.concatenate([mean[:, :1], second], axis=1)


def test_linear_chain_is_exact():
    """x⁺ = x + h (B x + (1, 2) ξ): mean and covariance by their recursions."""
    h, steps, noise = 0.2, 7, np.array([1.0, 2.0])
    step, P = np.eye(2) + h * B, np.zeros((2, 2))
    for _ in range(steps):
        P = step @ P @ step.T + h**2 * np.outer(noise, noise)
    mean = STARTS @ np.linalg.matrix_power(step, steps).T
    found = chain_expectation(
        lambda y, xi: y + h * (y @ B.T + noise * xi),
        ATOMS, WEIGHTS, moments, STARTS, steps, DOMAIN, (2, 3),
    )  # fmt: skip
    np.testing.assert_allclose(found, gaussian(mean, P), atol=1e-13, rtol=0)


def test_linear_diffusion_is_exact():
    time, values, vectors = 0.8, *np.linalg.eig(B)
    inverse = np.linalg.inv(vectors)
    mean = STARTS @ (vectors @ np.diag(np.exp(values * time)) @ inverse).real.T
    rates = values[:, None] + values
    C = inverse @ S @ inverse.T * (np.exp(rates * time) - 1) / rates
    found = diffusion_expectation(
        lambda y: y @ B.T,
        lambda y: np.broadcast_to(S, (len(y), 2, 2)),
        moments, STARTS, time, DOMAIN, 2,
    )  # fmt: skip
    np.testing.assert_allclose(
        found, gaussian(mean, (vectors @ C @ vectors.T).real), atol=1e-13, rtol=0
    )


def test_third_cumulants_in_three_dimensions():
    """L = κ:∇³/6 alone raises x y z by its time and cubes by 6 κ/6."""
    kappa = np.zeros((3, 3, 3))
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        kappa[axes] = 0.5
    kappa[2, 2, 2] = 0.25
    start = np.array([0.1, -0.2, 0.3])
    found = diffusion_expectation(
        np.zeros_like,
        lambda y: np.zeros((len(y), 3, 3)),
        lambda y: np.stack([y.prod(axis=1), y[:, 2] ** 3], axis=-1),
        start,
        2.0,
        [(-1, 1)] * 3,
        (2, 2, 3),
        lambda y: np.broadcast_to(kappa, (len(y), 3, 3, 3)),
    )
    np.testing.assert_allclose(found, [start.prod() + 1.0, start[2] ** 3 + 0.5], atol=1e-14)


def test_nonlinear_diffusion_against_finite_differences():
    b, s = lambda x: -np.sin(x) - x, lambda x: 0.5 + 0.1 * np.cos(x)
    x0 = np.array([-0.5, 0.0, 1.0])
    found = diffusion_expectation(
        lambda y: b(y), lambda y: s(y)[:, :, None] ** 2, lambda y: np.cos(y[:, 0]),
        x0[:, None], 0.9, [(-3, 3)], 24,
    )  # fmt: skip
    exact = expectation(np.cos, b, s, x0, 0.9, domain=(-3, 3), tolerance=1e-9)
    np.testing.assert_allclose(found, exact, atol=1e-7, rtol=0)


def test_nonlinear_chain_against_its_tree_of_paths():
    def update(y, xi):
        return y - 0.1 * (np.sin(y) + xi)

    paths, chances = np.array([[0.7]]), np.ones(1)
    for _ in range(5):
        paths = np.concatenate([update(paths, xi) for xi in ATOMS])
        chances = np.concatenate([p * chances for p in WEIGHTS])
    found = chain_expectation(
        update, ATOMS, WEIGHTS, lambda y: np.exp(y[:, 0]), [0.7], 5, [(-1, 2)], 26
    )
    assert found.shape == ()
    assert found == pytest.approx(chances @ np.exp(paths[:, 0]), abs=1e-10)


def test_bad_input_is_refused():
    def chain(**changed):
        settings = {
            "update": lambda y, xi: y, "atoms": ATOMS, "weights": WEIGHTS, "observable": moments,
            "x0": STARTS, "steps": 1, "domain": DOMAIN, "degree": 2,
        }  # fmt: skip
        return chain_expectation(**(settings | changed))

    np.testing.assert_allclose(chain(steps=0), moments(STARTS), atol=1e-15)
    for changed, message in (
        ({"weights": [0.5, 0.25, 0.2]}, "sum to 1"),
        ({"weights": [0.5, 0.5]}, "one an atom"),
        ({"x0": [[3.0, 0.0]]}, "in the domain"),
        ({"x0": [[1.0]]}, r"\(\.\.\., 2\)"),
        ({"domain": [(1, 0), (0, 1)]}, "widths"),
        ({"domain": [(0, 1)] * 4}, "1 to 3 coordinates"),
        ({"degree": (2, 3, 4)}, "3 degrees for 2"),
        ({"degree": 0}, "degree must"),
        ({"degree": 64}, "lower the degree"),
        ({"steps": -1}, "steps must"),
    ):
        with pytest.raises(InputError, match=message):
            chain(**changed)
    with pytest.raises(InputError, match="time must be positive"):
        diffusion_expectation(
            lambda y: y, lambda y: y[..., None] * y[:, None], moments, STARTS, 0.0, DOMAIN, 2
        )
