import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
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


def raveled(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def coefficients(drift, diffuse, noise):
    """The drift and the covariance G Gᵀ of what `diffuse` makes of a noise of that structure."""
    zero, unravel = jax.flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), noise)
    )
    G = jax.vmap(lambda e: raveled(diffuse(unravel(e))), out_axes=1)(jnp.eye(zero.size))
    return raveled(drift), G @ G.T


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("rmsprop-sde-2", 1.0),
        ("rmsprop-sde-2-order-2", 1.0),
        ("rmsprop-sde-10", 1.0),
        ("adam-sde-10-order-2", 1.0),
        ("usam-sde-20", 1.0),
        ("dnsam-sde-20", 1.0),
        ("sam-sde-20", 1.0),
        ("sam-sde-20", 0.01),  # where |g| is about the noise's norm
        ("sam-sde-20", 1e-4),
    ],
)
def test_the_formulas_of_the_peers_are_those_of_jaxsde(name, scale, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("jaxsde.use_all_cores", lambda: None)  # tests choose their own devices
    from benchmarks.throughput import cases
    from benchmarks.throughput.peers import formulas, with_jaxsde

    case, t = cases.find(name), 5 * 2.0**-7
    sde = with_jaxsde.process(case)[0].sde
    equation = formulas.equation(case, formulas.LAYOUTS["first"])
    start, wanted = equation.start(jnp.asarray(case.x0)), sde.initial(jnp.asarray(case.x0))
    np.testing.assert_allclose(raveled(start), raveled(wanted), rtol=1e-4)
    y = scale * raveled(start)
    y *= jnp.linspace(1.3, 0.8, y.size)
    ours, theirs = (jax.flatten_util.ravel_pytree(tree)[1](y) for tree in (wanted, start))
    noise = jax.ShapeDtypeStruct(formulas.noise_shape(case, (case.d,)), "float32")

    @jax.jit
    def both():
        diffusion = sde.diffusion(sde.t0 + t, ours, None)
        expected = coefficients(
            sde.drift(sde.t0 + t, ours, None), diffusion.mv, diffusion.in_structure()
        )
        diffuse = lambda dW: equation.diffuse(t, theirs, dW)  # noqa: E731
        return coefficients(equation.drift(t, theirs), diffuse, noise), expected

    for a, b in zip(*both(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())


def test_a_published_rate_is_printed_as_one_of_another_run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.throughput import report

    machine = {"copy_bytes_per_second": 1e10, "cipher_words_per_second": 1e9}
    rows = [
        {"case": case, "peer": "jaxsde", "coordinate_steps_per_second": 1.9e8}
        for case in ("rmsprop-sde-2-order-2", "rmsprop-sde-10", "sam-sde-20")
    ]
    report.add_limits(rows, machine)
    assert rows[0]["of_published_rate"] == pytest.approx(50)
    assert rows[0]["of_integer_rate"] == pytest.approx(0.38)  # two normals a coordinate
    assert report.published(rows[0]) == (
        "Not of this run: published scripts of this problem (torchsde, general noise) ran at 3.8 M "
        "coordinate-steps/s, measured earlier on 2 cores; jaxsde's rate above is 50 times that."
    )
    assert "of_published_rate" not in rows[1]
    printed = report.published(rows[2])
    assert "(one path, float64, sampled drift and covariance) ran at 0.0007 M c" in printed


def test_agents_against_their_words_and_a_hand_written_loop(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("jaxsde.use_all_cores", lambda: None)  # tests choose their own devices
    from benchmarks.agents import __main__ as command
    from benchmarks.agents import measure, report

    def no_torch(kept, paths):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    machine = {
        "date": "2026-01-01", "platform": "cpu", "device": "cpu", "devices": 1, "cores": 1,
        "processor": "one", "jax": "0", "system": "none", "flags": {},
    }  # fmt: skip
    monkeypatch.setattr(command, "measure_machine", lambda quick: dict(machine))
    monkeypatch.setattr(measure, "with_pytorch", no_torch)
    monkeypatch.setattr(measure.throughput, "PAUSE", 0)
    command.main(["--quick", "--repeats", "1", "--cases", "dsgd", "--out", str(tmp_path)])
    base = tmp_path / "agents-2026-01-01-cpu-1-cores-jax0-quick"
    first, *rows = map(json.loads, base.with_suffix(".jsonl").read_text().splitlines())
    assert first["machine"].items() >= machine.items()
    assert report.earlier(base, ["rand-k"]) == rows  # what --add keeps
    assert report.earlier(base, ["dsgd"]) == []
    rows = {row["peer"]: row for row in rows}
    assert rows.pop("pytorch")["status"] == "skipped: torch is not installed"
    for row in rows.values():
        assert (row["status"], row["date"], row["dtype"]) == ("ok", "2026-01-01", "float32")
        assert (row["agents"], row["paths"], row["d"]) == (16, 1024, 10)
        assert len(row["seconds"]) == 1
        assert {"python", "jax"} <= set(row["versions"])
    ours, words, sde, loop = (rows[name] for name in ("jaxsde", "words", "sde", "jax"))
    work = 16 * 10 * 1024 * ours["steps"]  # one normal each
    assert ours["agent_coordinates_per_second"] * ours["median_seconds"] == pytest.approx(work)
    assert words["words_per_second"] * words["median_seconds"] == pytest.approx(work)
    for row, name in ((ours, "of_words"), (sde, "of_optimizer"), (loop, "jaxsde_ratio")):
        assert 0 < row[f"{name}_range"][0] <= row[name] <= row[f"{name}_range"][1]
    assert loop["agrees"] is True  # fixed seeds: the loop is the same optimizer
    table = base.with_suffix(".md").read_text()
    assert "| DSGD | 8 |" in table
    assert "dsgd in pytorch (skipped: torch is not installed)" in table


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


def test_a_wrong_case_of_agents_gets_one_line(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.agents.__main__ import main

    with pytest.raises(SystemExit, match="agents: unknown case 'rand'; did you mean rand-k"):
        main(["--cases", "rand"])
