"""Rows into files: JSON lines and a Markdown table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.agents.cases import AGENTS, CASES, HAND_WRITTEN_KEEP, LEARNING_RATE, D
from benchmarks.agents.engines import ENGINES, HAND_WRITTEN
from benchmarks.throughput.report import table
from jaxsde import _files

EXPLANATION = (
    "The time of `simulate` for the optimizer over that for a process that draws the same declared "
    "draws and only adds them up; the same for the optimizer's SDE at dt = the learning rate over "
    "the optimizer. Both warm, in turn within a repeat; medians over repeats, with their range. "
    "An agent-coordinate is a coordinate of one agent's gradient on one path in one step, a word "
    "one value of a declared draw. The peers are hand-written loops of few steps, whose loss must "
    "agree with jaxsde's (means and variances within 5 standard errors)."
)


def markdown(rows: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The report."""
    versions = {name: v for row in rows for name, v in row.get("versions", {}).items()}
    flags = " ".join(f"{name}={value}" for name, value in machine["flags"].items()) or "none"
    ran = [row for row in rows if row["status"] == "ok"]
    cases = [{row["peer"]: row for row in ran if row["case"] == name} for name in CASES]
    head = (
        "case", "steps", "seconds", "M agent-coordinates/s", "its words alone s",
        "times its words", "M words/s", "its SDE s", "SDE / optimizer", "compile s",
    )  # fmt: skip
    peer_head = ("case", "engine", "steps", "M agent-coordinates/s", "jaxsde is x times as fast",
                 "check agrees")  # fmt: skip
    parts = [
        f"# {AGENTS} agents, {machine['date']}",
        f"{machine['devices']} x {machine['device']} ({machine['processor']}, {machine['cores']} "
        f"cores, {machine['system']}; load {machine['load_before']:.1f} before the last run, nice "
        f"{machine['nice']}), float32, flags: {flags}. "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
        f"{ran[0]['paths']:,} paths, N = {AGENTS}, d = {D}, a quadratic with curvatures 0.5 to 5, "
        f"noise of scale 0.5 to 2, learning rate {LEARNING_RATE:g}.",
        EXPLANATION,
        table(head, [_cells(runs) for runs in cases if runs]),
        "## Hand-written loops",
        table(
            peer_head,
            [_peer_cells(row) for row in ran if row["peer"] in ("jaxsde", *HAND_WRITTEN)
             and row["case"] in HAND_WRITTEN_KEEP],
        ),
    ]  # fmt: skip
    parts += [
        f"Not measured: {row['case']} in {row['peer']} ({row['status']})."
        for row in rows if row["status"] != "ok"
    ]  # fmt: skip
    parts += ["## How each is used", table(("engine", "settings"), list(ENGINES.items()))]
    return "\n\n".join(parts) + "\n"


def _cells(runs: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    ours, words, sde = runs["jaxsde"], runs["words"], runs["sde"]
    return (
        CASES[ours["case"]].means,
        f"{ours['steps']:,}",
        f"{ours['median_seconds']:.3g}",
        f"{ours['agent_coordinates_per_second'] / 1e6:,.0f}",
        f"{words['median_seconds']:.3g}",
        _ranged(ours, "of_words"),
        f"{words['words_per_second'] / 1e6:,.0f}",
        f"{sde['median_seconds']:.3g}",
        _ranged(sde, "of_optimizer"),
        f"{ours['compile_seconds']:.1f}",
    )


def _peer_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        CASES[row["case"]].means,
        row["peer"],
        f"{row['steps']:,}",
        f"{row['agent_coordinates_per_second'] / 1e6:,.1f}",
        "" if row["peer"] == "jaxsde" else _ranged(row, "jaxsde_ratio"),
        {True: "yes", False: "**no**", None: "alone"}[row["agrees"]],
    )


def _ranged(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_range"]
    return f"{row[name]:.3g} ({low:.3g} - {high:.3g})"


def write(rows: Sequence[dict[str, Any]], machine: dict[str, Any], base: Path) -> None:
    """The JSON lines and the table beside each other."""
    lines = [{"machine": machine}, *rows]
    for suffix, text in (
        ("jsonl", "".join(json.dumps(line) + "\n" for line in lines)),
        ("md", markdown(rows, machine)),
    ):
        with _files.atomic(f"{base}.{suffix}") as path:
            path.write_text(text, encoding="utf-8")


def earlier(base: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the file, but for those of these cases."""
    path = Path(f"{base}.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
    return [row for row in map(json.loads, lines) if row["case"] not in names]
