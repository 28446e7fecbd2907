"""What a weak-error study found."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsde import _checks
from jaxsde.analysis.compare import HEAVY, doubt, with_error
from jaxsde.analysis.weak_error._order import Order

LARGE = 0.1  # share of the integrator's last correction in an error that is worth a word


@dataclasses.dataclass(frozen=True)
class ObservableError:
    """E g(x_k) - E g(X_{t0 + k dt}) of one observable at L steps dt.

    Fields, each `(L,)` but for `order`:
        error: the difference, the SDE's mean extrapolated to step 0 of the integrator.
        standard_error: of it, by Monte Carlo alone.
        lower: the interval's lower end, by Monte Carlo alone.
        upper: its upper end.
        optimizer: E g(x_k).
        sde: E g(X).
        bias: the extrapolation's last correction; where it converges, more than is left of the
            integrator's error.
        bias_error: of that, by Monte Carlo.
        gain: standard error of two independent runs of as many steps in all, split at best between
            the optimizer and the SDE at the finest step, over this one. Surrogates and pilot are
            not counted.
        gain_by_pairing: the same with the common noise alone, without controls.
        heaviest: the largest share of a side's sampled variance that one path carries.
        order: the fit; None where the errors allow none.
    """

    error: Float[np.ndarray, " L"]
    standard_error: Float[np.ndarray, " L"]
    lower: Float[np.ndarray, " L"]
    upper: Float[np.ndarray, " L"]
    optimizer: Float[np.ndarray, " L"]
    sde: Float[np.ndarray, " L"]
    bias: Float[np.ndarray, " L"]
    bias_error: Float[np.ndarray, " L"]
    gain: Float[np.ndarray, " L"]
    gain_by_pairing: Float[np.ndarray, " L"]
    heaviest: float
    order: Order | None

    @property
    def shown(self) -> Bool[np.ndarray, " L"]:
        """Where the interval excludes 0; elsewhere the error is below the noise."""
        return (self.lower > 0) | (self.upper < 0)

    @property
    def changes_sign(self) -> bool:
        """Whether errors of both signs are shown."""
        signs = np.sign(self.error[self.shown])
        return bool(signs.size) and bool(np.any(signs != signs[0]))


@dataclasses.dataclass(frozen=True)
class WeakError:
    """A study: `errors` by observable at the learning rates, and the `verdict` in words.

    Fields:
        learning_rate: η, `(L,)`.
        dt: the optimizer's steps in the SDE's clock, `(L,)`.
        steps: how many of them, `(L,)`.
        paths: of the final runs, `(L,)`.
        used: the share of them that did not diverge, `(L,)`; below 1 there are no controls.
        time: at which the errors are, t0 + steps dt.
        confidence: of every interval.
        integrator: the SDE's steps at the finest level for each of the optimizer's.
        errors: by observable.
        seconds: the study took.
    """

    learning_rate: Float[np.ndarray, " L"]
    dt: Float[np.ndarray, " L"]
    steps: Int[np.ndarray, " L"]
    paths: Int[np.ndarray, " L"]
    used: Float[np.ndarray, " L"]
    time: float
    confidence: float
    integrator: int
    errors: dict[str, ObservableError]
    seconds: float

    @property
    def verdict(self) -> str:
        """What was and what was not shown, a line for each observable."""
        lines = [f"{name}: {self._of(found)}" for name, found in self.errors.items()]
        if self.used.min() < 1:
            lines.append(
                f"Conditional on survival: only {self.used.min():.1%} of the paths are left at "
                f"learning rate {self.learning_rate[np.argmin(self.used)]:g}."
            )
        return "\n".join(lines)

    def _of(self, found: ObservableError) -> str:
        if found.heaviest > HEAVY:
            return f"no verdict. {doubt(found.heaviest)}."
        text = f"{self._order(found)} {self._noise(found)}{self._bias(found)}"
        if not found.gain.max() > 0:
            return f"{text} There is no noise in it."
        gain = f"{found.gain.min():.2g} to {found.gain.max():.2g}"
        pairing = f"{found.gain_by_pairing.min():.2g} to {found.gain_by_pairing.max():.2g}"
        return (
            f"{text} Standard errors are {gain} times below those of independent runs of as many "
            f"steps (by common noise alone {pairing})."
        )

    def _order(self, found: ObservableError) -> str:
        if found.changes_sign:
            flips = np.flatnonzero(np.diff(np.sign(np.where(found.shown, found.error, np.nan))))
            at = [f"{self.learning_rate[i]:g} and {self.learning_rate[i + 1]:g}" for i in flips]
            between = f" between learning rates {', '.join(at)}" if at else ""
            return (
                f"the error changes sign{between}, so no order can be read off here: choose "
                "another time, observable, or smaller learning rates."
            )
        if found.order is None:
            largest = max(np.abs(found.lower).max(), np.abs(found.upper).max())
            return (
                f"no order: the error is shown at {found.shown.sum()} of {len(self.dt)} learning "
                f"rates, and three are needed. It is at most {largest:.2g}."
            )
        order, fit = found.order, ""
        whole = order.whole()
        if order.poor_fit:
            fit = " The points scatter more than their errors allow, so the errors do not follow "
            fit += "one power law there."
        if whole is not None:
            verdict = f"order {whole}, and no other whole one, agrees with that"
        elif order.upper - order.lower < 1:
            verdict = "no whole order agrees with that"
        else:
            verdict = "too wide to tell whole orders apart; more paths narrow it"
        return (
            f"weak order {order.value:.3f}, {self.confidence:.0%} interval {order.lower:.3f} to "
            f"{order.upper:.3f}: {verdict}.{fit}"
        )

    def _noise(self, found: ObservableError) -> str:
        hidden = self.learning_rate[~found.shown]
        if not hidden.size or found.order is None:
            return ""
        return f"Below the noise at learning rate {', '.join(f'{eta:g}' for eta in hidden)}. "

    def _bias(self, found: ObservableError) -> str:
        size = np.abs(found.error) + found.standard_error
        reach = np.abs(found.bias) + 2 * found.bias_error
        share = reach / np.where(size > 0, size, 1)
        text = f"The extrapolation's last correction is at most {share.max():.2g} of it"
        if np.any((reach > (found.upper - found.lower) / 2) & (share > LARGE)):
            return f"{text}, more than the noise: raise the levels."
        return f"{text}."

    def table(self, name: str) -> list[tuple[str, list[str]]]:
        """Columns (header, cells) of one observable, a row for each learning rate.

        Raises:
            InputError: no such observable.
        """
        _checks.known("observable", name, self.errors)
        found = self.errors[name]
        pairs = list(zip(found.error, found.standard_error, strict=True))
        scaled = [(e / h, s / h) for (e, s), h in zip(pairs, self.dt, strict=True)]
        return [
            ("learning\nrate", [f"{eta:.4g}" for eta in self.learning_rate]),
            ("steps", [f"{k:,}" for k in self.steps]),
            ("paths", [f"{n:,}" for n in self.paths]),
            ("optimizer\n- SDE", [with_error(*pair) for pair in pairs]),
            ("/ dt", [with_error(*pair) for pair in scaled]),
            ("integrator", [f"{bias:.1g}" for bias in found.bias]),
            ("gain", [f"{gain:.3g}" for gain in found.gain]),
        ]

    def to_xarray(self) -> Any:
        """A labelled dataset over `learning_rate`: `<name>.error`, `.standard_error`, ...

        Raises:
            ImportError: xarray is missing (pip install 'jaxsde[io]').
        """
        xarray = _checks.extra("xarray", "io")
        axis, variables = "learning_rate", {}
        for name in ("dt", "steps", "paths", "used"):
            variables[name] = (axis, getattr(self, name))
        attributes = {"time": self.time, "confidence": self.confidence, "verdict": self.verdict}
        for name, found in self.errors.items():
            for field, value in vars(found).items():
                if isinstance(value, np.ndarray):
                    variables[f"{name}.{field}"] = (axis, value)
            if found.order is not None:
                attributes[f"{name}.order"] = found.order[:3]
        return xarray.Dataset(variables, {axis: self.learning_rate}, attributes)
