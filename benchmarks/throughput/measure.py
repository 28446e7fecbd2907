"""Has workers run in turn, and makes a row of each."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import Peer
from benchmarks.throughput.process import Gone, Worker

PAUSE = 0.1  # seconds in which another worker's threads fall asleep
STANDARD_ERRORS = 5  # a peer that computes the same agrees but for one case in a million
KURTOSIS = 9  # of f at the end, at most; enters the standard error of its variance


def measure(
    case: Case,
    peers: Sequence[Peer],
    pythons: dict[str, str],
    *,
    repeats: int,
    seconds: float,
    limit: float,
    quick: bool,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for every peer: first calls, a check of the results, then repeats A B C A B C ..."""
    workers = [
        Worker(peer, case, pythons.get(peer.name, sys.executable), quick, limit) for peer in peers
    ]
    try:
        _in_turn(workers, lambda worker: worker.answer())
        for worker in workers:
            tell(f"{case.name}: first calls of {worker.peer.name}")
            _in_turn([worker], lambda worker: _first_calls(worker, seconds))
        for number in range(1, repeats + 1):
            tell(f"{case.name}: repeat {number} of {repeats}")
            _in_turn(workers, _repeat)
        _in_turn(workers, lambda worker: worker.row.update(worker.ask(report=True)))
    finally:
        for worker in workers:
            worker.end()
    rows = [_row(worker, quick) for worker in workers]
    compare(rows)
    return rows


def _in_turn(workers: Sequence[Worker], act: Callable[[Worker], Any]) -> None:
    for worker in workers:
        if worker.status != "ok":
            continue
        try:
            act(worker)
        except Gone as gone:
            worker.status = str(gone)


def _first_calls(worker: Worker, seconds: float) -> None:
    """The first call and a warm one of few steps, then as many steps as take `seconds`."""
    time.sleep(PAUSE)
    steps = worker.case.check_steps
    first, warm = worker.ask(steps=steps, seed=0), worker.ask(steps=steps, seed=0)
    worker.row |= {
        "first_call_seconds": first["seconds"],
        "compile_seconds": first["seconds"] - warm["seconds"],
        "check_steps": steps,
        "check_mean": warm["mean"],
        "check_variance": warm["variance"],
    }
    took = warm["seconds"]
    for _ in range(4):
        if seconds / 2 < took < seconds * 2:
            break
        steps = 2 * max(1, round(steps * min(seconds / took, 30) / 2))  # even: jaxsde pairs steps
        took = worker.ask(steps=steps, seed=0)["seconds"]
        if steps == 2:
            break
    worker.row["steps"] = steps


def _repeat(worker: Worker) -> None:
    time.sleep(PAUSE)
    seed = len(worker.row["seconds"]) + 1
    answer = worker.ask(steps=worker.row["steps"], seed=seed)
    worker.row["seconds"].append(answer["seconds"])


def _row(worker: Worker, quick: bool) -> dict[str, Any]:
    case, peer, row = worker.case, worker.peer, worker.row
    head = {
        "case": case.name, "peer": peer.name, "status": worker.status, "d": case.d,
        "paths": case.paths, "dt": case.dt, "dtype": "float32", "quick": quick,
        "settings": peer.settings, "statistics": peer.statistics,
    }  # fmt: skip
    if worker.status == "ok":
        median = statistics.median(row["seconds"])
        work = case.paths * case.d * row["steps"]
        head |= {"median_seconds": median, "coordinate_steps_per_second": work / median}
    return head | row


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds to each row whether its check agrees with at least half of the others, and our ratio.

    The ratio is jaxsde's rate over the peer's, the median over repeats, each repeat by itself.
    """
    ran = [row for row in rows if row["status"] == "ok"]
    for row in ran:
        others = [other for other in ran if other is not row]
        row["disagrees_with"] = [other["peer"] for other in others if not _agree(row, other)]
        row["agrees"] = 2 * len(row["disagrees_with"]) <= len(others) if others else None
    ours = next((row for row in ran if row["peer"] == "jaxsde"), None)
    for row in ran if ours else ():
        ratios = [
            (ours["steps"] / mine) / (row["steps"] / its)
            for mine, its in zip(ours["seconds"], row["seconds"], strict=True)
        ]
        row["jaxsde_ratio"] = statistics.median(ratios)
        row["jaxsde_ratio_range"] = [min(ratios), max(ratios)]


def _agree(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Means and variances of f, both from `paths` independent paths, within 5 standard errors."""
    n, variances = a["paths"], (a["check_variance"], b["check_variance"])
    error_of_mean = (sum(variances) / n) ** 0.5
    error_of_variance = ((KURTOSIS - 1) * sum(v**2 for v in variances) / n) ** 0.5
    return (
        abs(a["check_mean"] - b["check_mean"]) <= STANDARD_ERRORS * error_of_mean
        and abs(variances[0] - variances[1]) <= STANDARD_ERRORS * error_of_variance
    )
