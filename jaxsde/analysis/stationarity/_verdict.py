"""What is shown about a stationary law, in words."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsde.analysis.compare import with_error
from jaxsde.analysis.stationarity._evidence import Evidence
from jaxsde.analysis.stationarity._tails import Tail

if TYPE_CHECKING:
    from jaxsde.analysis.stationarity._stationary import Stationary

STATIONARY = "stationary"
SETTLED = "settled from this start"
ALIKE = "settled from starts that nothing observed tells apart"
DIFFER = "not stationary: the starts differ"
DRIFTS = "not stationary: still drifting"
REMEMBERS = "not shown to be stationary: the paths remember where they were"
NONE_LEFT = "no path is left of a start"
SURVIVORS = ", given survival"


def conclusion(result: "Stationary") -> str:
    """One of the above, the first of DIFFER, DRIFTS, REMEMBERS that is shown."""
    found = result.evidence
    if any(np.any(e.survivors == 0) for e in found.values()):
        return NONE_LEFT
    given = SURVIVORS if any(np.any(e.survivors < 1) for e in found.values()) else ""
    for text, shown in (
        (DIFFER, result.differ),
        (DRIFTS, result.drifts),
        (REMEMBERS, result.remembers),
    ):
        if any(shown(name) for name in found):
            return text + given
    if len(result.runs) == 1:
        return SETTLED + given
    return (STATIONARY if result.dispersed else ALIKE) + given


def verdict(result: "Stationary") -> str:
    """The conclusion, what it means, and a line for each observable."""
    lines = [_headline(result)]
    if not lines[0].startswith(NONE_LEFT):
        lines += [_line(result, name, e) for name, e in result.evidence.items()]
    return "\n".join(lines)


def _headline(result: "Stationary") -> str:
    found = result.conclusion
    paths, names = f"{min(run.paths for run in result.runs.values()):,} paths", result.starts
    if len(names) > 1:
        paths += f" from each of {len(names)} starts ({', '.join(names)})"
    text = f"{found} ({paths}, {result.confidence:.0%} confidence over all tests)"
    return f"{text}: {_meaning(result, found.removesuffix(SURVIVORS))}.{_survivors(result)}"


def _meaning(result: "Stationary", found: str) -> str:
    begin, end = result.time[result.window][[0, -1]]
    between = f"t = {begin:.4g} and {end:.4g}"
    if found == NONE_LEFT:
        return "they diverged"
    if found == DIFFER:
        agreed = max(result.agreed(name) for name in result.evidence)
        levels = (result.found(name, "difference") for name in result.evidence)
        laws = (result.found(name, "law_difference") for name in result.evidence)
        if agreed < np.inf and not any(shown.any() for shown in (*levels, *laws)):
            return f"they agree only from t = {agreed:.4g} on, within the window; run longer"
        return f"the law at t = {end:.4g} depends on where a run begins"
    if found == DRIFTS:
        return f"the law changes between {between}"
    if found == REMEMBERS:
        return (
            f"where a path is at one of {between} still tells where it is at the other; run longer"
        )
    if found == ALIKE:
        return "their agreement shows nothing; take starts that differ in what is observed"
    slowest = max(float(np.max(e.relaxation)) for e in result.evidence.values())
    lasts = ""
    if 0 < slowest < np.inf:
        times = (end - result.time[0]) / slowest
        lasts = f". The run is {times:.0f} times the longest relaxation seen, {slowest:.2g}"
    if found == SETTLED:
        return (
            f"nothing drifts between {between}. One start cannot tell the stationary law from that "
            f"of a well which paths do not leave in this time{lasts}"
        )
    agreed = max(result.agreed(name) for name in result.evidence)
    return f"the starts agree from t = {agreed:.4g} on, and nothing drifts between {between}{lasts}"


def _survivors(result: "Stationary") -> str:
    shares = np.min([e.survivors for e in result.evidence.values()], axis=0)
    left = ", ".join(
        f"{share:.2%} of those from {start}"
        for start, share in zip(result.starts, shares, strict=True)
        if share < 1
    )
    return f" Paths diverged, and all is conditional on survival: left are {left}." if left else ""


def _line(result: "Stationary", name: str, e: Evidence) -> str:
    parts = []
    if e.statistic == "median":
        parts.append(_heavy(max(e.tails, key=lambda tail: tail.shape)))
    if not e.shape and not result.differ(name):
        value, error = (
            e.level.value,
            np.sqrt(np.sum(e.level.standard_error**2)) / len(e.level.value),
        )
        parts.append(f"{e.statistic} {with_error(value.mean(), error)} over the window")
    for found in (_difference(result, name, e), _drift(result, name, e), _memory(result, name, e)):
        parts += found
    if not (result.differ(name) or result.drifts(name) or result.remembers(name)):
        parts.append(_bound(result, e))
    return f"{name}: " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _heavy(tail: Tail) -> str:
    if tail.excludes(1):
        return f"no mean exists, {tail}; medians are compared"
    if not tail.shows(1):
        return f"no mean is shown to exist, {tail}; medians are compared"
    return f"no variance is shown to exist, {tail}, so means have no error; medians are compared"


def _difference(result: "Stationary", name: str, e: Evidence) -> list[str]:
    """How the starts differ: in their levels, else in their laws, else at a time."""
    if not result.differ(name):
        return []
    if result.found(name, "difference").any():
        (pair, i), z = _clearest(e.difference)
        first, second = result.pairs[pair]
        size = with_error(e.difference.value[pair, i], e.difference.standard_error[pair, i])
        return [
            f"the starts differ{_component(e, i)}: the {e.statistic} over the window from "
            f"{first} less that from {second} is {size}, {z:.1f} standard errors"
        ]
    if result.found(name, "law_difference").any():
        pair, i = np.unravel_index(np.argmin(e.law_difference.p), e.law_difference.p.shape)
        first, second = result.pairs[pair]
        return [
            f"the laws from {first} and {second} differ at the end{_component(e, i)}: "
            f"{_ks(e.law_difference, pair, i)}"
        ]
    return [f"the starts differ until t = {result.agreed(name):.4g}, within the window"]


def _drift(result: "Stationary", name: str, e: Evidence) -> list[str]:
    if result.found(name, "drift").any():
        (start, i), z = _clearest(e.drift)
        size = with_error(e.drift.value[start, i], e.drift.standard_error[start, i])
        return [
            f"still drifting from {result.starts[start]}{_component(e, i)}: the {e.statistic} "
            f"changes by {size} from the window's first half to its second, {z:.1f} standard errors"
        ]
    if result.found(name, "law_drift").any():
        start, i = np.unravel_index(np.argmin(e.law_drift.p), e.law_drift.p.shape)
        return [
            f"the law from {result.starts[start]} still changes within the window"
            f"{_component(e, i)}: {_ks(e.law_drift, start, i)}"
        ]
    return []


def _memory(result: "Stationary", name: str, e: Evidence) -> list[str]:
    if not result.remembers(name):
        return []
    start, i = np.unravel_index(np.argmin(e.memory.p), e.memory.p.shape)
    return [
        f"paths from {result.starts[start]} remember where they were{_component(e, i)}: the rank "
        f"correlation of the window's ends is "
        f"{with_error(e.memory.value[start, i], e.memory.standard_error[start, i])}"
    ]


def _bound(result: "Stationary", e: Evidence) -> str:
    """What could still be there, in units of the law's spread."""
    c, text = result.critical, []
    for what, test in (("differences of", e.difference), ("a drift of", e.drift)):
        reach = np.abs(test.value) + c * test.standard_error
        reach = np.where(np.isnan(reach), 0, reach)
        if reach.size:
            row, i = np.unravel_index(np.argmax(reach), reach.shape)
            share = reach[row, i] / e.spread[i] if e.spread[i] > 0 else np.nan
            part = f" ({share:.1%} of the interquartile range)" if np.isfinite(share) else ""
            text.append(f"{what} the {e.statistic} up to {reach[row, i]:.2g}{part}")
    return "what the bands still allow: " + ", ".join(text)


def _ks(test: Any, row: Any, i: Any) -> str:
    return (
        f"Kolmogorov-Smirnov {with_error(test.value[row, i], test.standard_error[row, i])}, "
        f"p = {test.p[row, i]:.1g}"
    )


def _clearest(test: Any) -> tuple[tuple[int, int], float]:
    known = test.standard_error > 0
    z = np.where(known, np.abs(test.value) / np.where(known, test.standard_error, 1), 0)
    at = np.unravel_index(np.argmax(np.nan_to_num(z)), z.shape)
    return (int(at[0]), int(at[1])), float(z[at])


def _component(e: Evidence, i: Any) -> str:
    return f" in component {list(map(int, np.unravel_index(i, e.shape)))}" if e.shape else ""
