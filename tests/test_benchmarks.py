import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
WRONG = """
import dataclasses

from benchmarks.throughput.peers import with_numpy

PACKAGES = ("numpy",)


class TwiceTheDrift:
    def __init__(self, case):
        self._case = case

    def __getattr__(self, name):
        value = getattr(self._case, name)
        return dataclasses.replace(value, h=2 * value.h) if name == "parameters" else value


def build(case, variant):
    return with_numpy.build(TwiceTheDrift(case), variant)
"""


def throughput(*arguments, path=""):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_rows_tables_and_figure_with_a_peer_that_is_wrong_and_one_that_is_missing(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    out = tmp_path / "out"
    peers = ("jaxsde", "jax-paths-last", "numpy", "wrong=wrong", "absent=no_such_engine")
    done = throughput(
        "--quick", "--repeats", 2, "--cases", "sign-sgd-10", "--out", out, "--peers", *peers,
        "--python", f"numpy={sys.executable}", path=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (lines,) = out.glob("throughput-*.jsonl")
    first, *rows = map(json.loads, lines.read_text().splitlines())
    machine, rows = first["machine"], {row["peer"]: row for row in rows}
    assert machine["copy_bytes_per_second"] > 1e8
    assert machine["cipher_words_per_second"] > 1e7
    assert rows.pop("absent")["status"] == "skipped: no_such_engine is not installed"
    for row in rows.values():
        assert row["status"] == "ok"
        assert (row["d"], row["paths"], row["dtype"]) == (10, 2000, "float32")
        assert len(row["seconds"]) == 2
        rate = row["paths"] * row["d"] * row["steps"] / row["median_seconds"]
        assert row["coordinate_steps_per_second"] == pytest.approx(rate)
        assert row["first_call_seconds"] > 0
        assert row["peak_memory_mb"] > row["memory_above_imports_mb"] >= 0
        assert row["jaxsde_ratio_range"][0] <= row["jaxsde_ratio"] <= row["jaxsde_ratio_range"][1]
        assert {"python", "numpy"} <= set(row["versions"])
        assert row["statistics"].startswith("f at the")
    assert 0 < rows["jaxsde"]["of_integer_rate"] < 1
    agrees = {peer: row["agrees"] for peer, row in rows.items()}  # fixed seeds
    assert agrees == {"jaxsde": True, "jax-paths-last": True, "numpy": True, "wrong": False}
    table = lines.with_suffix(".md").read_text()
    assert "## sign-sgd-10: d = 10, 2,000 paths" in table
    assert "absent (skipped: no_such_engine is not installed)" in table
    assert table.count("**no**") == 1
    assert lines.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in lines.read_text() + table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "sign-sgd-11"], "unknown case 'sign-sgd-11'; did you mean sign-sgd-1"),
        (["--peers", "nympy"], "unknown peer 'nympy'; did you mean numpy"),
        (["--regime", "speed"], "unknown regime 'speed'"),
        (["--python", "numpy=/no/such/python"], "--python numpy: /no/such/python is no interpr"),
    ],
)
def test_a_wrong_name_gets_one_line(arguments, message, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.throughput.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert message in stopped.value.code
    assert "\n" not in stopped.value.code
