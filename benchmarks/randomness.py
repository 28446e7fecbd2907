"""The raw words of the noise's frozen layout through dieharder: `python -m benchmarks.randomness`.

A stream is the engine's words in one order of their counters, as users of the noise meet them, and
the same words with their bits reversed, because most tests look at the leading ones.
"""

import argparse
import datetime
import functools
import importlib.metadata
import itertools
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from jaxsde import InputError, _checks, _files
from jaxsde.engine import noise

RESULTS = Path(__file__).parent / "results"
MISSING = "dieharder is not installed: apt-get install dieharder (Debian, Ubuntu)"
SUSPICIOUS = 0.002  # two-sided; such a test is run again with another seed
IMPOSSIBLE = 1e-8


class Stream(NamedTuple):
    """An order of the words W[seed, j, half, slot, coordinate, path].

    Fields:
        order: the axes, the slowest first; block after block carries on the axis `j`.
        means: what it is.
        seed, j, half, slot, coordinate, path: sizes of the axes in one block; `half` 1 is w₀ alone.
    """

    order: str
    means: str
    seed: int = 1
    j: int = 1
    half: int = 2
    slot: int = 1
    coordinate: int = 1
    path: int = 1


STREAMS = {
    "paths": Stream(
        "j half slot coordinate path seed", "as steps draw: paths fastest, then coordinates, steps",
        j=16, coordinate=16, path=2**13,
    ),
    "steps": Stream(
        "seed slot coordinate path j half", "one coordinate of one path, step after step", j=2**21
    ),
    "coordinates": Stream(
        "j half path coordinate slot seed", "one path, coordinates fastest, then steps",
        j=2, coordinate=2**20,
    ),
    "pairs": Stream(
        "j slot coordinate path half seed", "w₀ and w₁ of one block in turn, then the next path",
        path=2**21,
    ),
    "first": Stream(
        "j slot coordinate path half seed", "w₀ alone, paths fastest", half=1, path=2**22
    ),
    "slots": Stream(
        "j half coordinate path slot seed", "eight declared draws in turn, then the next path",
        slot=8, path=2**18,
    ),
    "seeds": Stream(
        "j half slot coordinate path seed", "neighbouring seeds in turn, then the next path",
        seed=2**12, path=2**9,
    ),
}  # fmt: skip
CONTROL = "control"  # a generator that must fail: multiples of the golden ratio


class Trial(NamedTuple):
    """A test of dieharder and its length of words, where it has one."""

    number: int
    ntuple: int | None = None


# All that dieharder calls good; what it calls suspect or not to be used (5, 6, 7, 14) is left out.
_PLAIN = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 15, 16, 100, 101, 102, 205, 206, 207, 208, 209)
_TUPLES = {200: range(1, 13), 201: range(2, 6), 202: range(2, 6), 203: range(33)}
_QUICK = {200: (1, 4, 8), 201: (2, 5), 202: (2, 5), 203: (0, 1, 3, 8)}
BATTERIES = {
    "quick": [Trial(n) for n in _PLAIN] + [Trial(n, t) for n, all in _QUICK.items() for t in all],
    "full": [Trial(n) for n in (*_PLAIN, 17, 204)]
    + [Trial(n, t) for n, all in _TUPLES.items() for t in all],
}


class Raw(noise.Law):
    """The words themselves."""

    def pack(self, block, like):
        """w₀ and w₁."""
        return block(like.shape)

    def value(self, packed, parity, like):
        """w₀ on even steps, w₁ on odd ones."""
        return packed[parity]


@functools.partial(jax.jit, static_argnames=("stream", "reversed_bits"))
def block(stream: Stream, seed, first_j, path, reversed_bits: bool = False) -> UInt32[Array, "n"]:
    """One block of a stream: seeds from `seed`, steps from 2 `first_j`, paths from `path`."""
    draws = [noise.Draw((stream.coordinate,), Raw())] * stream.slot
    paths = path + jnp.arange(stream.path, dtype=jnp.uint32)

    def words(seed, j):
        key = noise.key_words(jax.random.key(seed))
        packed = noise.blocks(draws, key, j, paths, jnp.float32)
        return jnp.stack([jnp.stack(pair[: stream.half]) for pair in packed])

    over_j = jax.vmap(words, (None, 0))
    seeds = seed + jnp.arange(stream.seed, dtype=jnp.uint32)
    every = jax.vmap(over_j, (0, None))(seeds, first_j + jnp.arange(stream.j, dtype=jnp.uint32))
    axes = ["seed", "j", "slot", "half", "coordinate", "path"]
    found = every.transpose([axes.index(axis) for axis in stream.order.split()]).ravel()
    return reverse(found) if reversed_bits else found


def reverse(word: UInt32[Array, "n"]) -> UInt32[Array, "n"]:
    """The bits of each word, the last first."""
    for shift, mask in (
        (1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF),
    ):  # fmt: skip
        shift, mask = np.uint32(shift), np.uint32(mask)
        word = ((word >> shift) & mask) | ((word & mask) << shift)
    return word


def blocks(name: str, seed: int, reversed_bits: bool = False) -> Iterator[np.ndarray]:
    """A stream, block after block; after 2³⁰ pairs of steps come the next paths."""
    if name == CONTROL:
        for i in itertools.count():
            every = np.arange(i * 2**20, (i + 1) * 2**20, dtype=np.uint64) * 0x9E3779B9
            weyl = jnp.asarray(every.astype(np.uint32))
            yield np.asarray(reverse(weyl) if reversed_bits else weyl)
    stream = STREAMS[name]
    for i in itertools.count():
        lap, turn = divmod(i, 2**30 // stream.j)
        counters = (seed, turn * stream.j, lap * stream.path)
        yield np.asarray(block(stream, *map(np.uint32, counters), reversed_bits=reversed_bits))


class Result(NamedTuple):
    """A line of dieharder: which test, with which numbers, and its p-value."""

    test: str
    ntuple: int
    samples: int
    p_samples: int
    p: float


def run(trial: Trial, words: Iterator[np.ndarray]) -> list[Result]:
    """One test, fed from where the test before it stopped."""
    flags = ("test_name", "ntuple", "tsamples", "psamples", "pvalues")
    command = ["dieharder", "-g", "200", "-c", ",", "-d", str(trial.number)]
    command += ["-n", str(trial.ntuple)] if trial.ntuple is not None else []
    for flag in flags:
        command += ["-D", flag]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for block in words:
                process.stdin.write(block.tobytes())
        except BrokenPipeError:  # it has had enough
            pass
        lines = process.stdout.read().decode().splitlines()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    results = []
    for line in lines:
        if re.fullmatch(r"\s*\w+,\s*\d+,\s*\d+,\s*\d+,\s*[\d.]+\s*,?", line):
            name, ntuple, samples, p_samples, p = line.split(",")[:5]
            results.append(
                Result(name.strip(), int(ntuple), int(samples), int(p_samples), float(p))
            )
    if not results:
        raise SystemExit(f"python -m benchmarks.randomness: no result from {' '.join(command)}")
    return results


def examine(
    name: str, reversed_bits: bool, seed: int, trials: Sequence[Trial], tell: Callable[[str], None]
) -> list[dict]:
    """Every test on one stream; a suspicious one again, with a seed far from the first."""
    again_seed = (seed + 2**31) % 2**32
    words, again_words = (blocks(name, s, reversed_bits) for s in (seed, again_seed))
    rows = []
    for trial in trials:
        tell(f"{label(name, reversed_bits)}: test {trial.number}, n = {trial.ntuple}")
        found = run(trial, words)
        if any(two_sided(result.p) < SUSPICIOUS for result in found):
            again = run(trial, again_words)
        else:
            again = [None] * len(found)
        for result, other in zip(found, again, strict=True):
            row = {"stream": name, "reversed_bits": reversed_bits, "seed": seed}
            row |= result._asdict()
            if other is not None:
                row |= {"again_seed": again_seed, "again_p": other.p}
            row["passed"] = passed(result, other)
            rows.append(row)
    return rows


def two_sided(p: float) -> float:
    """p-values near one are as suspicious as those near zero."""
    return 2 * min(p, 1 - p)


def passed(result: Result, again: Result | None) -> bool:
    """Whether a test speaks for randomness: not impossible, and not suspicious twice.

    A sound generator is called suspicious twice with 4e-6 a test.
    """
    if two_sided(result.p) < IMPOSSIBLE:
        return False
    suspicious = two_sided(result.p) < SUSPICIOUS
    return not (suspicious and again is not None and two_sided(again.p) < SUSPICIOUS)


def label(name: str, reversed_bits: bool) -> str:
    """A stream's name in the tables."""
    return f"{name}, bits reversed" if reversed_bits else name


def markdown(rows: Sequence[dict], settings: dict) -> str:
    """The verdicts as a table, and every suspicious p-value."""
    lines = [
        f"dieharder {settings['dieharder']} on the noise's raw words, {settings['date']}: battery "
        f"`{settings['battery']}`, jaxsde {settings['jaxsde']}, jax {settings['jax']}, "
        f"Python {settings['python']}, seed {settings['seed']}.",
        "",
        f"p-values count on both sides, 2 min(p, 1 - p). One below {SUSPICIOUS:g} is called "
        "suspicious and its test run again with another seed; a sound generator has one in "
        f"{1 / SUSPICIOUS:.0f} tests, and one that is suspicious twice in {1 / SUSPICIOUS**2:.0f}. "
        "dieharder prints eight digits and approximates its p-values. The control is no "
        "generator (multiples of the golden ratio modulo 2³²): it must fail.",
        "",
        "| stream | what it is | tests | smallest p, two-sided | suspicious | again | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    means = {name: stream.means for name, stream in STREAMS.items()}
    means[CONTROL] = "must fail"
    key = lambda row: (row["stream"], row["reversed_bits"])  # noqa: E731
    suspicious = [row for row in rows if "again_p" in row and two_sided(row["p"]) < SUSPICIOUS]
    for (name, reversed_bits), group in itertools.groupby(rows, key):
        group = list(group)
        found = [row for row in suspicious if key(row) == (name, reversed_bits)]
        again = sum(two_sided(row["again_p"]) < SUSPICIOUS for row in found)
        failed = sum(not row["passed"] for row in group)
        smallest = min(two_sided(row["p"]) for row in group)
        verdict = "passes" if not failed else f"fails {failed}"
        lines.append(
            f"| {label(name, reversed_bits)} | {means[name]} | {len(group)} | {smallest:.2g} | "
            f"{len(found)} | {again} | {verdict} |"
        )
    found = [row for row in suspicious if row["stream"] != CONTROL]
    if found:
        lines += ["", "Suspicious p-values, and those of the other seed:", ""]
        lines += ["| stream | test | n | p | p again |", "|---|---|---|---|---|"]
        lines += [
            f"| {label(row['stream'], row['reversed_bits'])} | {row['test']} | {row['ntuple']} | "
            f"{row['p']:.8f} | {row['again_p']:.8f} |"
            for row in found
        ]
    return "\n".join(lines) + "\n"


def write(rows: Sequence[dict], settings: dict, folder: Path) -> Path:
    """Both files; their common path without the ending."""
    name = "randomness" if settings["battery"] == "quick" else f"randomness-{settings['battery']}"
    base = folder / f"{name}-{settings['date']}"
    with _files.atomic(f"{base}.jsonl") as path:
        records = [settings, *rows]
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with _files.atomic(f"{base}.md") as path:
        path.write_text(markdown(rows, settings), encoding="utf-8")
    return base


def parser() -> argparse.ArgumentParser:
    """The command line."""
    streams = "; ".join(f"{name}: {stream.means}" for name, stream in STREAMS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.randomness",
        description="The raw words of the noise through dieharder, and the verdicts into files.",
        epilog=f"streams: {streams}; {CONTROL}: no generator, must fail.",
    )
    add = parser.add_argument
    add("--streams", nargs="+", metavar="STREAM", help="all by default")
    add("--battery", default="quick", help="quick (minutes a stream) or full (an hour)")
    add("--bits", nargs="+", default=["plain", "reversed"], help="plain, reversed; both by default")
    add("--seed", type=int, default=0, help="default: 0")
    add("--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Tests and writes; the files are whole after every stream."""
    options = parser().parse_args(arguments)
    names = options.streams or [*STREAMS, CONTROL]
    try:
        for name in names:
            _checks.known("stream", name, [*STREAMS, CONTROL])
        for bits in options.bits:
            _checks.known("kind of bits", bits, ["plain", "reversed"])
        _checks.known("battery", options.battery, BATTERIES)
        if not 0 <= options.seed < 2**31:
            raise InputError(f"--seed must lie in [0, 2³¹), got {options.seed}")
        if shutil.which("dieharder") is None:
            raise InputError(MISSING)
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.randomness: {error}") from None
    version = subprocess.run(["dieharder", "-l"], capture_output=True, text=True).stdout
    settings = {
        "dieharder": (re.search(r"version ([\d.]+)", version) or ["", "unknown"])[1],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "battery": options.battery,
        "seed": options.seed,
        "jaxsde": importlib.metadata.version("jaxsde"),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    rows: list[dict] = []
    base = options.out
    for name, bits in itertools.product(dict.fromkeys(names), dict.fromkeys(options.bits)):
        tell = functools.partial(print, file=sys.stderr, flush=True)
        trials = BATTERIES[options.battery]
        rows += examine(name, bits == "reversed", options.seed, trials, tell)
        base = write(rows, settings, options.out)
    print(markdown(rows, settings), end="")
    print(f"\n{base}.jsonl, .md")


if __name__ == "__main__":
    main()
