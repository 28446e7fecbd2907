"""Judgements into files: a page to read and JSON lines."""

import collections
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.report import table
from benchmarks.verdicts import _judge
from benchmarks.verdicts._judge import VERDICTS, Judgement, Result, Verdict
from jaxsde import _files

TITLES = {
    "gradient_descent": "SGD, momentum, order 2",
    "sign": "SignSGD",
    "adaptive": "RMSprop(W) and Adam(W)",
    "scaling": "Scaling rules and SVAG",
    "distributed": "Many agents, compression",
    "sharpness": "Sharpness-aware minimisation",
    "minimax": "Minimax games",
}
FAILS = ("wrong", "lower order", "bound violated")
HEAD = (
    "formula", "as printed", "where it holds", "error there", "verdict", "beyond",
    "corrected form", "its error",
)  # fmt: skip
INTRODUCTION = """\
Every published formula that `jaxsde.theory` implements, on a fixed grid of settings, against the \
exact law of what it speaks of: the algorithm or its SDE, by recursion, by the exact chain on a \
lattice, by enumeration, quadrature or transfer operators (of RMSprop and Adam at rest with v at \
its mean). Where the grid has a simulation, the \
exact law was checked against it{simulated}.

Printed forms are as their sources have them where those were at hand (abstracts, posters, code, a \
thesis), else as later accounts restate them: before citing a failure, compare the row with your \
copy of the paper. Bounds that a paper proves for an SDE are judged there, and again as readers \
use them, for the algorithm.

How to read a row:

- **error there** is the relative error of the printed formula over the settings where it is said \
to hold, smallest to largest; of a bound, its slack, the bound over the truth (of a lower bound \
the truth over the bound), 1 where it is attained, below 1 where it is violated. A factor is the \
printed form over the exact law; of a violated bound, the truth over the bound.
- **beyond** is the same at settings outside of that range, as far as the grid has some.
- **verdict** is one of the words below. A slope is that of the logarithm of the error in the \
logarithm of the small parameter, at the two smallest settings of every sweep: 1 for an error of \
first order. A formula to leading order is as its authors meant it; the error then tells from \
where on it can be used.
- **corrected form** is the one that `jaxsde.theory` implements or the page derives, judged by the \
same grid."""


def page(found: Mapping[str, Sequence[Judgement]], run: Mapping[str, Any]) -> str:
    """The page: how to read it, counts, one table a family, failures, how to make it."""
    every = [judgement for judgements in found.values() for judgement in judgements]
    simulated = f", and agrees within {_judge.AGREEMENT:g} standard errors"
    if not run["simulated"]:
        simulated = "; this page was made without simulations"
    elif any(judgement.problems for judgement in every):
        simulated = ", with the disagreements listed under *Alarms*"
    parts = [
        "# Verdicts on published formulas",
        INTRODUCTION.format(simulated=simulated),
        _counts(every),
        *_alarms(every),
    ]
    for family, judgements in found.items():
        parts += [
            f"## {TITLES.get(family, family)}",
            table(HEAD, [_row(judgement) for judgement in judgements]),
        ]
    parts += [*_failures(found), "## How this page is made", _recipe(run)]
    return "\n\n".join(parts) + "\n"


def _counts(every: Sequence[Judgement]) -> str:
    counted = collections.Counter(judgement.published.word for judgement in every)
    cases = sum(len(judgement.results) for judgement in every)
    checks = [r.z for judgement in every for r in judgement.results if r.z is not None]
    largest = f", largest difference {max(map(abs, checks)):.1f} standard errors" if checks else ""
    rows = [(word, str(counted[word]), means) for word, means in VERDICTS.items() if counted[word]]
    text = (
        f"{len(every)} formulas at {cases} settings; {len(checks)} simulations against exact "
        f"laws{largest}."
    )
    return f"{text}\n\n{table(('verdict', 'formulas', 'meaning'), rows)}"


def _alarms(every: Sequence[Judgement]) -> list[str]:
    lines = [
        f"- **{judgement.formula.name}**: {problem}"
        for judgement in every for problem in judgement.problems
    ]  # fmt: skip
    if not lines:
        return []
    text = "The exact law, the correction or the code is wrong here:"
    return ["## Alarms", text, "\n".join(lines)]


def _row(judgement: Judgement) -> tuple[str, ...]:
    formula, published = judgement.formula, judgement.published
    verdict = f"**{published.word}**" if published.word in FAILS else published.word
    cells = (
        f"**{formula.name}**<br>{formula.source}",
        formula.printed,
        formula.holds,
        _error(formula.kind, published),
        _told(verdict, published.detail),
        judgement.outside,
        formula.correction,
        "" if judgement.corrected is None else _judged(formula.kind, judgement.corrected),
    )
    return tuple(_cell(text) for text in cells)


def _told(word: str, detail: str) -> str:
    """The verdict and its numbers: "wrong by a factor 2", "leading order, slope 1"."""
    between = " " if detail.startswith("by ") else ", "
    return f"{word}{between}{detail}" if detail else word


def _error(kind: str, verdict: Verdict) -> str:
    if kind == "equality":
        return _judge.percent(verdict.low, verdict.high)
    return f"slack {_judge.spread(verdict.low, verdict.high, '.4g')}"


def _judged(kind: str, verdict: Verdict) -> str:
    word = "" if verdict.word in ("approximate", "bound holds") else f"; {verdict.word}"
    detail = f" {verdict.detail}" if verdict.slopes and word else ""
    return f"{_error(kind, verdict)}{word}{',' if detail else ''}{detail}"


def _cell(text: str) -> str:
    """Without what Markdown would take for a column's end or for emphasis."""
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("\\*\\*", "**")


def _failures(found: Mapping[str, Sequence[Judgement]]) -> list[str]:
    """What fails, with the numbers of its worst setting."""
    lines = []
    for judgements in found.values():
        for judgement in judgements:
            if judgement.published.word in FAILS:
                lines.append(_failure(judgement))
    if not lines:
        return []
    text = "At the worst setting of the grid where they are said to hold:"
    return ["## Where the printed form fails", text, "\n".join(lines)]


def _failure(judgement: Judgement) -> str:
    formula = judgement.formula
    worst = max(
        (result for result in judgement.results if result.case.inside),
        key=lambda result: _distance(formula.kind, result),
    )
    case = worst.case
    numbers = [f"printed {case.published:.5g}"]
    if case.exact is not None:
        numbers.append(f"exact {case.exact:.5g}")
    if worst.value is not None:
        numbers.append(f"simulated {worst.value:.5g} ± {worst.standard_error:.1g}")
    if case.corrected is not None:
        numbers.append(f"corrected {case.corrected:.5g}")
    told = _told(judgement.published.word, judgement.published.detail)
    better = f" Corrected: {_cell(formula.correction)}." if formula.correction else ""
    return (
        f"- **{_cell(formula.name)}** ({_cell(formula.source)}): {told}. "
        f"At {_cell(case.setting)}: {', '.join(numbers)}.{better}"
    )


def _distance(kind: str, result: Result) -> float:
    """How bad: |log| of the ratio for equalities, the violation's factor for bounds."""
    error = result.error()
    if error is None:
        return -math.inf
    ratio = 1 + error
    if ratio <= 0:
        return math.inf
    distance = math.log(ratio)
    return {"equality": abs(distance), "upper bound": -distance, "lower bound": distance}[kind]


def _recipe(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (
        f"`{run['command']}` makes it again, {run['date']}, seed {run['seed']}; {versions}. The "
        "values of every setting are in the JSON lines beside the other results of `benchmarks/`."
    )


def lines(found: Mapping[str, Sequence[Judgement]], run: Mapping[str, Any]) -> str:
    """JSON lines: the run, then a line a setting."""
    rows: list[dict[str, Any]] = [{"run": dict(run)}]
    for family, judgements in found.items():
        for judgement in judgements:
            rows += [_json(family, judgement, result) for result in judgement.results]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _json(family: str, judgement: Judgement, result: Result) -> dict[str, Any]:
    case = result.case
    row = {
        "family": family, "formula": judgement.formula.name, "source": judgement.formula.source,
        "kind": judgement.formula.kind, "verdict": judgement.published.word,
        "setting": case.setting, "inside": case.inside, "small": case.small,
        "published": case.published, "exact": case.exact, "corrected": case.corrected,
        "simulated": result.value, "standard_error": result.standard_error, "z": result.z,
        "error": result.error(), "corrected_error": result.error(corrected=True),
    }  # fmt: skip
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def record(run: Mapping[str, Any], results: Path) -> Path:
    """The JSON lines' file."""
    suffix = "" if run["simulated"] else "-quick"
    return results / f"verdicts-{run['date']}{suffix}.jsonl"


def write(
    found: Mapping[str, Sequence[Judgement]], run: Mapping[str, Any], out: Path, record: Path
) -> None:
    """The page and the JSON lines."""
    for path, text in ((out, page(found, run)), (record, lines(found, run))):
        with _files.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
