"""SAM, USAM and DNSAM step by step: on a finite sum, under Gaussian noise, on quadratics."""

import itertools

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial.legendre import leggauss

from benchmarks.verdicts._chains import Step, backward
from jaxsde.problems import EmbeddedSaddle, FiniteSum, mean

KINDS = ("USAM", "SAM", "DNSAM")
X = np.array([0.8, -0.6])
"""Where single steps are taken from."""


def usam_step(H: np.ndarray, eta: float, rho: float) -> Step:
    """x⁺ = x - η g(x + ρ g(x)), g(x) = H x + ξ, word for word."""

    def step(x, xi):
        def g(point):
            return H @ point + xi

        return x - eta * g(x + rho * g(x))

    return step


def perturbation(kind: str, g_c: np.ndarray, g: np.ndarray) -> np.ndarray:
    """p_c of `(C, 2)` gradients, whose mean is g."""
    norm = {"USAM": 1.0, "SAM": np.linalg.norm(g_c, axis=-1, keepdims=True)}
    return g_c / norm.get(kind, np.linalg.norm(g))


class Terms:
    """f = (1/3) Σ f_c, f_c = Σᵢ hᵢ xᵢ²/2 + q xᵢ⁴/4 - s xᵢ³/3, and its batches of so many terms."""

    h = np.array([[1.0, 0.5], [2.0, -0.5], [0.5, 1.5]])
    q = np.array([[0.5], [1.0], [0.25]])
    s = np.array([[0.5], [-1.0], [0.75]])

    def __init__(self, batch_size: int = 1):
        self.batches = np.array(list(itertools.product(range(3), repeat=batch_size)))

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """g_c of all batches c at x, or at one x each, `(C, 2)`."""
        x = np.broadcast_to(x, (len(self.batches), 2))[:, None]
        h, q, s = (each[self.batches] for each in (self.h, self.q, self.s))
        return np.mean(h * x + q * x**3 - s * x**2, axis=1)

    def loss(self, x: np.ndarray) -> float:
        """f(x)."""
        return float(np.sum(self.h * x**2 / 2 + self.q * x**4 / 4 - self.s * x**3 / 3) / 3)

    def mean_gradient(self, kind: str, rho: float, full: bool = False) -> np.ndarray:
        """E g_c(X + ρ p_c), all batches enumerated; p_c of ∇f itself where `full`."""
        g_c = self.gradients(X)
        g = np.mean(g_c, axis=0)
        p = perturbation(kind, np.broadcast_to(g, g_c.shape) if full else g_c, g)
        return np.mean(self.gradients(X + rho * p), axis=0)

    def problem(self) -> FiniteSum:
        """The same as a problem of the package."""
        return mean(
            [EmbeddedSaddle(h, q[0], s[0]) for h, q, s in zip(self.h, self.q, self.s, strict=True)]
        )


class Additive:
    """The first of these terms alone, with Gaussian noise: g + Z, Z ~ N(0, σ² I)."""

    def __init__(self, sigma: float):
        self.sigma = sigma

    def problem(self) -> EmbeddedSaddle:
        """The same as a problem of the package."""
        return EmbeddedSaddle(Terms.h[0], Terms.q[0, 0], Terms.s[0, 0])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """∇f, `(..., 2)`."""
        return Terms.h[0] * x + Terms.q[0] * x**3 - Terms.s[0] * x**2

    def loss(self, x: np.ndarray) -> float:
        """f(x)."""
        return float(np.sum(Terms.h[0] * x**2 / 2 + Terms.q[0] * x**4 / 4 - Terms.s[0] * x**3 / 3))

    def mean_gradient(self, kind: str, rho: float) -> np.ndarray:
        """E ∇f(X + ρ p) by quadrature."""
        g = self.gradient(X)
        w, weights = noisy_vectors(g, self.sigma)
        return weights @ self.gradient(X + rho * perturbation(kind, w, g))


def noisy_vectors(g: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes w `(N, 2)` and weights of w = g + Z: polar about 0, where w/|w| is singular."""
    nodes, weights = leggauss(120)
    end = np.linalg.norm(g) + 10 * sigma
    r, angle = end * (nodes + 1) / 2, 2 * np.pi * np.arange(240) / 240
    w = r[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    mass = (weights * r)[:, None] * np.exp(-np.sum((w - g) ** 2, axis=-1) / (2 * sigma**2))
    return w.reshape(-1, 2), mass.ravel() / np.sum(mass)


def step_covariance(H: np.ndarray, g: np.ndarray, sigma: float, rho: float) -> np.ndarray:
    """Cov(Z + ρ H u), u = (g + Z)/|g + Z|, by quadrature: that of a SAM step over η."""
    w, weights = noisy_vectors(g, sigma)
    moved = w - g + rho * w / np.linalg.norm(w, axis=-1, keepdims=True) @ H
    moved = moved - weights @ moved
    return (weights * moved.T) @ moved


def sam_stationary_variance(lam: float, sigma: float, eta: float, rho: float) -> float:
    """E x² as t → ∞ of x⁺ = x - η (w + λ ρ sign w), w = λ x + Z, in one dimension.

    x² is mapped backwards on polynomials over [-R, R] until it is constant; w by quadrature on
    either side of 0.
    """
    degree, reach = 24, 9 * np.sqrt(eta * sigma**2 / (2 * lam))
    x = reach * chebyshev.chebpts1(degree + 1)
    nodes, weights = leggauss(60)
    moved, mass = [], []
    for sign in (-1, 1):
        end = 9 * sigma + np.maximum(sign * lam * x, 0)[:, None]
        w = sign * end * (nodes + 1) / 2
        density = np.exp(-((w - lam * x[:, None]) ** 2) / (2 * sigma**2))
        mass.append(weights * end / 2 * density / (sigma * np.sqrt(2 * np.pi)))
        moved.append(x[:, None] - eta * (w + lam * rho * sign))
    step = backward(np.hstack(moved), np.hstack(mass), reach, degree)
    late = np.linalg.matrix_power(step, round(30 / (eta * lam)))
    square = np.zeros(degree + 1)
    square[[0, 2]] = reach**2 / 2  # x² = (T₀ + T₂) R²/2
    return float((late @ square)[0])


def escapes(H: np.ndarray, x: np.ndarray, eta: float, rho: float) -> bool:
    """Whether noise-free SAM from x leaves its saddle for good, |x| > 10 ρ."""
    for _ in range(round(40 / eta)):
        g = H @ x
        if np.linalg.norm(x) > 10 * rho:
            return True
        g_perturbed = H @ (x + rho * g / np.linalg.norm(g))
        x = x - eta * g_perturbed
    return False


def capture_radius(H: np.ndarray, direction: np.ndarray, eta: float, rho: float) -> float:
    """The |H x| on the ray of this direction from which on SAM escapes, by bisection."""
    low, high = 0.01 * rho, 8 * rho
    for _ in range(28):
        middle = (low + high) / 2
        low, high = (low, middle) if escapes(H, middle * direction, eta, rho) else (middle, high)
    return float(low * np.linalg.norm(H @ direction))
