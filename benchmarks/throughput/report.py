"""Rows into files: JSON lines, a Markdown table, a figure."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.cases import BY_NAME, PUBLISHED
from jaxsde import _files

Row = dict[str, Any]
EXPLANATION = (
    "A rate counts coordinates of the position: paths x d x steps a second, of the median repeat. "
    "Peers take turns within a repeat. The ratio is jaxsde's rate over the peer's, the median over "
    "repeats, with its range: above 1 jaxsde is the faster. The first call is a run of the check's "
    "steps; what a second takes less is compilation. Memory is the process's peak, and what of it "
    "came after the imports (on an accelerator the device's peak). A check agrees if mean and "
    "variance of f after the same steps lie within 5 standard errors of at least half of the other "
    "peers'."
)


def add_limits(rows: Sequence[Row], machine: Row) -> None:
    """Adds to jaxsde's rows what of the machine's limits they reach.

    `of_copy_bandwidth` is its rate over the one at which the state is read and written once a step,
    `of_integer_rate` that over the one at which the noise's cipher alone runs, which makes two
    normals of about a hundred operations: the fraction of the time that the raw cipher takes.
    `of_published_rate` is that over the rate of a published script, which did not run now.
    """
    for row in rows:
        rate = row.get("coordinate_steps_per_second")
        if row["peer"] != "jaxsde" or rate is None:
            continue
        case, published = BY_NAME[row["case"]], PUBLISHED.get(row["case"])
        state_bytes = 8 * case.state
        row["of_copy_bandwidth"] = rate * state_bytes / machine["copy_bytes_per_second"]
        row["of_integer_rate"] = rate * case.motions / machine["cipher_words_per_second"]
        if published is not None:
            then = published.coordinate_steps_per_second
            row |= {"published_rate": then, "of_published_rate": rate / then}


def stem(machine: Row) -> str:
    """The files' name without their suffix."""
    device = machine["device"]
    if machine["platform"] == "cpu":
        device = f"cpu-{machine['devices']}-cores"
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return f"throughput-{machine['date']}-{slug}-jax{machine['jax']}"


def write(rows: Sequence[Row], machine: Row, base: Path) -> None:
    """Writes the JSON lines and the table beside each other."""
    add_limits(rows, machine)
    lines = [{"machine": machine}, *rows]
    _write(Path(f"{base}.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
    _write(Path(f"{base}.md"), markdown(rows, machine))


def _write(path: Path, text: str) -> None:
    with _files.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown(rows: Sequence[Row], machine: Row) -> str:
    """The report."""
    versions = {name: v for row in rows for name, v in row.get("versions", {}).items()}
    settings = {row["peer"]: (row["settings"], row["statistics"]) for row in rows}
    flags = " ".join(f"{name}={value}" for name, value in machine["flags"].items()) or "none"
    parts = [
        f"# Throughput, {machine['date']}",
        f"{machine['devices']} x {machine['device']} ({machine['processor']}, {machine['cores']} "
        f"cores, {machine['system']}), float32, flags: {flags}. "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
        f"Copy bandwidth {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s, integer rate "
        f"{machine['integer_operations_per_second'] / 1e9:.1f} G operations/s (the engine's cipher "
        f"alone: {machine['cipher_words_per_second'] / 1e6:,.0f} M words/s, a word a normal).",
        *_busy(machine),
        EXPLANATION,
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        parts += _case([row for row in rows if row["case"] == case])
    how = [(peer, *used) for peer, used in settings.items()]
    parts += ["## How each peer is used", table(("peer", "settings", "statistics"), how)]
    return "\n\n".join(parts) + "\n"


def _busy(machine: Row) -> list[str]:
    load = machine["load_before"]
    if load is None or load < machine["cores"] / 4:
        return []
    return [
        f"**The machine was busy before the run (load {load:.1f} on {machine['cores']} cores), and "
        "peers that wait for all threads at every operation suffer most from that.**"
    ]


def _case(rows: Sequence[Row]) -> list[str]:
    ran = sorted(
        (row for row in rows if row["status"] == "ok"),
        key=lambda row: -row["coordinate_steps_per_second"],
    )
    head = (
        "peer", "M coordinate-steps/s", "jaxsde is x times as fast", "steps", "seconds",
        "first call s", "of it compile s", "memory MB", "check agrees",
    )  # fmt: skip
    first = rows[0]
    parts = [
        f"## {first['case']}: d = {first['d']}, {first['paths']:,} paths",
        table(head, [_cells(row) for row in ran]),
    ]
    missing = [f"{row['peer']} ({row['status']})" for row in rows if row["status"] != "ok"]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    parts += [
        f"jaxsde reaches {row['of_copy_bandwidth']:.1%} of the rate at which copying the state "
        f"every step would be all, and {row['of_integer_rate']:.1%} of that at which the noise's "
        "cipher would be all."
        for row in ran
        if "of_integer_rate" in row
    ]
    parts += [published(row) for row in ran if "of_published_rate" in row]
    return parts


def published(row: Row) -> str:
    """How a row compares with a published script, which did not run now."""
    return (
        f"Not of this run: published scripts of this problem ({PUBLISHED[row['case']].how}) ran at "
        f"{row['published_rate'] / 1e6:.2g} M coordinate-steps/s, measured earlier on 2 cores; "
        f"jaxsde's rate above is {row['of_published_rate']:.3g} times that."
    )


def _cells(row: Row) -> tuple[str, ...]:
    ratio = ""
    if row.get("jaxsde_ratio") and row["peer"] != "jaxsde":
        low, high = row["jaxsde_ratio_range"]
        ratio = f"{row['jaxsde_ratio']:.3g} ({low:.3g} - {high:.3g})"
    memory = f"{row['peak_memory_mb']:.0f} / {row['memory_above_imports_mb']:.0f}"
    if row["device_peak_memory_mb"] is not None:
        memory = f"{row['device_peak_memory_mb']:.0f} on the device"
    agrees = {True: "yes", False: "**no**", None: "alone"}[row["agrees"]]
    return (
        row["peer"],
        f"{row['coordinate_steps_per_second'] / 1e6:,.3g}",
        ratio,
        f"{row['steps']:,}",
        f"{row['median_seconds']:.3g}",
        f"{row['first_call_seconds']:.2f}",
        f"{row['compile_seconds']:.2f}",
        memory,
        agrees,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
