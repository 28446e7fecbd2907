"""What theory says of the loss under noise: laws of five optimizers and bounds on them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax
import scipy.special

from jaxsde import optimizers, theory
from jaxsde.problems import Quadratic

METHODS = ("sgd", "sign_sgd", "adam", "adam-l2", "adamw")


class Level(NamedTuple):
    """What theory says of one method at one noise, and how fast it gets there.

    Fields:
        law: E f(x) - f* as t → ∞.
        bound: on it, corrected where the published one fails.
        published: the bound as printed.
        relaxation: steps in which the slowest coordinate's distance from its law falls by e.
    """

    law: float
    bound: float
    published: float
    relaxation: float


@dataclasses.dataclass(frozen=True)
class Setting:
    """The problem and the hyperparameters that all methods share."""

    problem: Quadratic
    learning_rate: float
    weight_decay: float
    b1: float
    b2: float

    def chain(self, method: str) -> tuple[Callable, dict[str, Any]]:
        """The optimizer and its hyperparameters."""
        eta, theta = self.learning_rate, self.weight_decay
        if method in ("sgd", "sign_sgd"):
            return getattr(optax, method), {"learning_rate": eta}
        return optimizers.adam, {
            "learning_rate": eta, "b1": self.b1, "b2": self.b2,
            "weight_decay": theta if method == "adamw" else 0.0,
            "l2_regularization": theta if method == "adam-l2" else 0.0,
        }  # fmt: skip

    def level(self, method: str, sigma: float, batch_size: float) -> Level:
        """What theory says of a method at noise of standard deviation σ/√B."""
        of = {"sgd": self._sgd, "sign_sgd": self._sign_sgd}.get(method)
        if of is not None:
            return of(sigma, batch_size)
        theta = self.weight_decay
        decays: dict[str, dict[str, Any]] = {
            "adam": {},
            "adam-l2": {"l2_regularization": theta},
            "adamw": {"weight_decay": theta},
        }
        return self._adam(sigma, batch_size, decays[method])

    def _sgd(self, sigma: float, B: float) -> Level:
        """Exact; equation 3 of the poster."""
        eta, lam = self.learning_rate, np.asarray(self.problem.hessian, float)
        variance = np.full(lam.shape, sigma**2 / B)
        covariance = theory.gradient_descent.stationary_covariance(
            self.problem, variance, eta, theory.discrete
        )
        bound, published = (
            theory.gradient_descent.loss_level(**constants, sigma=sigma, batch_size=B)
            for constants in self._constants()
        )
        law = float(lam @ np.diag(covariance)) / 2
        return Level(law, float(bound), float(published), 1 / (eta * lam.min()))

    def _sign_sgd(self, sigma: float, B: float) -> Level:
        """Exact from the minimiser; equation 4 of the poster, and with its factor √(π/2)."""
        eta, lam = self.learning_rate, np.asarray(self.problem.hessian, float)
        s = sigma / np.sqrt(B)
        bound, published = (
            theory.sign.loss_level(**constants, sigma=sigma, batch_size=B, published=printed)
            for constants, printed in zip(self._constants(), (False, True), strict=True)
        )
        law = sum(curvature * sign_variance(curvature, s, eta) for curvature in lam) / 2
        rate = theory.sign.slope() * lam.min() / s
        return Level(law, float(bound), float(published), 1 / (eta * rate))

    def _adam(self, sigma: float, B: float, decays: dict[str, Any]) -> Level:
        """V held at its mean; equations 5 and 6 of the poster, in 5 with √B before the bracket."""
        eta, lam = self.learning_rate, np.asarray(self.problem.hessian, float)
        found = theory.adaptive.frozen_second_moment_law(
            self.problem, sigma**2, eta, theory.discrete, b1=self.b1, eps=1e-8, batch_size=B,
            **decays,
        )  # fmt: skip
        law = float(theory.expected_loss(self.problem, found.moments))
        bounds = [np.nan, np.nan]
        if not any(decays.values()) or not np.any(np.asarray(self.problem.minimizer)):
            bounds = [
                theory.adaptive.loss_level(
                    **constants, sigma=sigma, batch_size=B, smoothness=lam.max(),
                    published=printed, **decays,
                )
                for constants, printed in zip(self._constants(), (False, True), strict=True)
            ]  # fmt: skip
        root = np.sqrt(found.second_moment)
        rate = np.min((lam + decays.get("l2_regularization", 0.0)) / root)
        rate += decays.get("weight_decay", 0.0)
        memory = 1 / (1 - self.b1) + 1 / (1 - self.b2)  # of m and of v
        bound, published = map(float, bounds)
        return Level(law, bound, published, 1 / (eta * rate) + memory)

    def _constants(self) -> tuple[dict[str, float], dict[str, float]]:
        """η, μ and L_τ: tr H, and as printed L d."""
        lam = np.asarray(self.problem.hessian, float)
        shared = {"learning_rate": self.learning_rate, "mu": float(lam.min())}
        return (
            shared | {"hessian_trace": float(lam.sum())},
            shared | {"hessian_trace": float(lam.max()) * lam.size},
        )


def sign_variance(curvature: float, scale: float, learning_rate: float) -> float:
    """E (x - x*)² as t → ∞ under SignSGD on f = λ (x - x*)²/2 from x*, averaged over time.

    x - x* walks on η ℤ, up from η j with probability p_j = Φ(-η λ j/s). Detailed balance,
    π_j p_j = π_{j+1} (1 - p_{j+1}), gives its law, exactly (derived here); even and odd steps see
    even and odd j, and the average over time both.

    Args:
        curvature: λ.
        scale: s, the standard deviation of the Gaussian gradient noise.
        learning_rate: η.
    """
    a = learning_rate * curvature / scale
    reach = int(np.ceil(12 * max(1, np.sqrt(np.sqrt(np.pi / 2) / (2 * a))))) + 10
    j = np.arange(reach)
    up, down = (scipy.special.log_ndtr(sign * a * (j + edge)) for sign, edge in ((-1, 0), (1, 1)))
    log_pi = np.concatenate([[0.0], np.cumsum(up - down)])
    pi = np.exp(log_pi) * np.where(np.arange(reach + 1) > 0, 2, 1)  # both signs of j
    return learning_rate**2 * float(pi @ np.arange(reach + 1) ** 2 / pi.sum())
