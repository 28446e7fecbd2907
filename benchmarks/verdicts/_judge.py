"""Formulas into verdicts: errors, slopes, slacks, and whether simulation and exact law agree."""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.verdicts._verdict import Case, Formula

AGREEMENT = 5.0  # standard errors between simulation and exact law; some 200 checks a run
ROUNDING = 1e-7  # relative error that quadratures and grids of the exact laws leave
HOLDS = 0.05  # relative error up to which a formula that claims no order is said to hold
ORDER = 0.3  # by which a slope may miss a claimed order at the settings' finite steps

VERDICTS = {
    "exact": "equal to the exact law at every setting of the grid, to rounding",
    "leading order": "the error vanishes with the small parameter, at the order that is claimed",
    "lower order": "the error vanishes with the small parameter, but more slowly than claimed",
    "approximate": f"within {HOLDS:.0%} of the exact law at every setting",
    "wrong": f"off by more than {HOLDS:.0%} somewhere, and the error does not vanish",
    "bound holds": "at every setting",
    "bound violated": "at some setting",
}


class Result(NamedTuple):
    """A case, with what its simulation gave."""

    case: Case
    value: float | None = None
    standard_error: float | None = None

    @property
    def truth(self) -> float | None:
        """The exact law, or the simulated value where none is known."""
        return self.value if self.case.exact is None else self.case.exact

    @property
    def uncertainty(self) -> float:
        """What the truth is known to."""
        if self.case.exact is None:
            return AGREEMENT * (self.standard_error or 0.0)
        return ROUNDING * abs(self.case.exact)

    @property
    def z(self) -> float | None:
        """The simulated value less the exact law, in standard errors."""
        if self.value is None or self.case.exact is None:
            return None
        return (self.value - self.case.exact) / max(self.standard_error or 0.0, 1e-300)

    def error(self, corrected: bool = False) -> float | None:
        """The relative error of the published, or corrected, form; 0 within the uncertainty."""
        form, truth = self.case.corrected if corrected else self.case.published, self.truth
        if form is None or truth is None:
            return None
        if not math.isfinite(form):
            return math.inf
        if abs(form - truth) <= self.uncertainty:
            return 0.0
        return form / truth - 1


class Verdict(NamedTuple):
    """One form of a formula, judged where it is said to hold.

    Attributes:
        word: a key of `VERDICTS`.
        detail: the numbers, in a few words.
        worst: the largest |relative error|, or the largest factor of violation (or 1).
        low: the smallest relative error, or slack.
        high: the largest.
        slopes: of the error in the small parameter, one a sweep.
    """

    word: str
    detail: str
    worst: float
    low: float
    high: float
    slopes: tuple[float, ...] = ()


class Judgement(NamedTuple):
    """A formula, its results, and the verdicts on both forms."""

    formula: Formula
    results: list[Result]
    published: Verdict
    corrected: Verdict | None
    outside: str
    problems: list[str]


def judged(
    formula: Formula, key: jax.Array | None, tell: Callable[[str], None] = lambda text: None
) -> Judgement:
    """The formula at all its settings; without a key nothing is simulated."""
    results = []
    for index, case in enumerate(formula.cases()):
        if case.simulate is None or key is None:
            if case.exact is not None:
                results.append(Result(case))
            continue
        tell(f"{formula.name}: simulating {case.setting}")
        own = jax.random.fold_in(jax.random.fold_in(key, _number(formula)), index)
        estimate = case.simulate(own)
        value, error = (float(np.asarray(part).reshape(())) for part in estimate)
        results.append(Result(case, value, error))
    return judgement(formula, results)


def judgement(formula: Formula, results: list[Result]) -> Judgement:
    """The verdicts on results already there."""
    inside = [result for result in results if result.case.inside]
    outside = [result for result in results if not result.case.inside]
    published = _verdict(formula, inside, corrected=False)
    corrected = None
    if any(result.case.corrected is not None for result in inside):
        corrected = _verdict(formula, inside, corrected=True)
    found = Judgement(formula, results, published, corrected, _outside(formula, outside), [])
    return found._replace(problems=_problems(found))


def _number(formula: Formula) -> int:
    """The same for a formula in every run, whatever else is in it."""
    return zlib.crc32(formula.name.encode()) & 0x7FFFFFFF


def _verdict(formula: Formula, results: Sequence[Result], corrected: bool) -> Verdict:
    pairs = [(result, result.error(corrected)) for result in results]
    known = [(result, error) for result, error in pairs if error is not None]
    if not known:
        return Verdict("wrong", "no setting could be evaluated", math.inf, math.nan, math.nan)
    if formula.kind == "equality":
        order = formula.corrected_order if corrected else formula.order
        return _of_equality(known, order)
    return _of_bound(formula.kind, known)


def _of_equality(known: Sequence[tuple[Result, float]], order: float | None) -> Verdict:
    errors = np.array([error for _, error in known])
    worst, low, high = float(np.max(np.abs(errors))), float(errors.min()), float(errors.max())
    if worst == 0 or worst <= ROUNDING:
        return Verdict("exact", "", worst, low, high)
    slopes = tuple(_slopes(known))
    if slopes:
        shown = spread(min(slopes), max(slopes), ".2f")
        if min(slopes) < 0.25 and worst <= HOLDS:
            word, detail = "approximate", "the error changes sign or stays"
        elif min(slopes) < 0.25:
            word, detail = "wrong", f"{_factors(errors)}, which does not vanish"
        elif order is not None and min(slopes) < order - ORDER:
            word, detail = "lower order", f"slope {shown} where {order:g} is claimed"
        else:
            word, detail = "leading order", f"slope {shown}"
        return Verdict(word, detail, worst, low, high, slopes)
    if worst <= HOLDS:
        return Verdict("approximate", "", worst, low, high)
    return Verdict("wrong", _factors(errors), worst, low, high)


def _of_bound(kind: str, known: Sequence[tuple[Result, float]]) -> Verdict:
    """Slack is published/truth of an upper, truth/published of a lower bound."""
    ratios = np.array([1 + error for _, error in known])
    slack = ratios if kind == "upper bound" else 1 / ratios
    low, high = float(slack.min()), float(slack.max())
    if low >= 1 - ROUNDING:
        word = "bound holds"
        detail = "attained" if low <= 1.0005 else ""
        return Verdict(word, detail, 1.0, low, high)
    worst = 1 / low if low > 0 else math.inf
    shown = f"by a factor {worst:.4g}" if math.isfinite(worst) else "by its sign"
    return Verdict("bound violated", shown, worst, low, high)


def _slopes(known: Sequence[tuple[Result, float]]) -> list[float]:
    """d log |error| / d log small between the two smallest of every sweep."""
    sweeps: list[list[tuple[float, float]]] = []
    for result, error in known:
        small = result.case.small
        if small is None:
            sweeps.append([])
            continue
        if not sweeps or not sweeps[-1] or small >= sweeps[-1][-1][0]:
            sweeps.append([])
        sweeps[-1].append((small, error))
    slopes = []
    for sweep in sweeps:
        if len(sweep) < 2:
            continue
        (s1, e1), (s2, e2) = sweep[-2:]
        if e1 and e2:
            slopes.append(math.log(abs(e1 / e2)) / math.log(s1 / s2))
    return slopes


def _factors(errors: np.ndarray) -> str:
    """How far the form is off, as factors."""
    ratios = 1 + errors
    return f"by a factor {spread(ratios.min(), ratios.max(), '.3g')}"


def spread(low: float, high: float, spec: str) -> str:
    """Such as "1 to 2", or "1" where both are shown alike."""
    return " to ".join(dict.fromkeys(format(value, spec) for value in (low, high)))


def _outside(formula: Formula, results: Sequence[Result]) -> str:
    """What the published form does beyond its range."""
    known = [(result, error) for result in results if (error := result.error()) is not None]
    if not known:
        return ""
    if formula.kind == "equality":
        errors, slopes = [error for _, error in known], _slopes(known)
        slope = f", slope {spread(min(slopes), max(slopes), '.2f')}" if slopes else ""
        return f"error {percent(min(errors), max(errors))}{slope}"
    found = _of_bound(formula.kind, known)
    return f"{found.word} {found.detail}".strip()


def percent(low: float, high: float) -> str:
    """A range of relative errors, as percentages."""
    return " to ".join(dict.fromkeys(_percent(value) for value in (low, high)))


def _percent(value: float) -> str:
    if value == 0 or abs(value) < 5e-9:
        return "0"
    if not math.isfinite(value):
        return "none"
    if abs(value) < 5e-5:
        return f"{value:+.0e}"
    digits = max(1 - math.floor(math.log10(abs(100 * value))), 0)
    return f"{100 * value:+,.{min(digits, 3)}f} %"


def _problems(found: Judgement) -> list[str]:
    """What must not be: then the exact law, the correction or the code is wrong."""
    problems = []
    for result in found.results:
        if result.z is not None and not abs(result.z) <= AGREEMENT:
            problems.append(
                f"simulation and exact law disagree at {result.case.setting}: "
                f"{result.value:.6g} and {result.case.exact:.6g}, {result.z:+.1f} standard errors"
            )
    corrected, published = found.corrected, found.published
    if corrected is None:
        return problems
    if found.formula.kind != "equality":
        if corrected.word != "bound holds":
            problems.append(f"the corrected bound is violated {corrected.detail}")
        elif published.word == "bound holds" and corrected.high > published.high:
            problems.append("the corrected bound is looser than the published one")
        return problems
    if corrected.word in ("wrong", "lower order"):
        problems.append(f"the corrected form is {corrected.word}: {corrected.detail}")
    if corrected.worst >= published.worst:
        problems.append("the corrected form is no better than the published one")
    return problems
