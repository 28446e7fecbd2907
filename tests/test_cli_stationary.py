import re

import numpy as np
import pytest

import jaxsde
from jaxsde import cli

SMALL = ["--steps", "400", "--paths", "600", "--records", "20"]


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def run(tmp_path, *arguments):
    cli.main(["stationary", *SMALL, *arguments, "--output", str(tmp_path)])


def test_the_double_well_is_not_called_stationary(tmp_path, capsys):
    run(tmp_path, "sgd", "--problem", "double-well")
    printed = capsys.readouterr().out
    assert "not stationary: the starts differ" in printed
    assert "no one law to describe" in printed
    assert "quantile" not in printed
    row = next(line for line in printed.splitlines() if "mean position[0]" in line)
    levels = [float(number) for number in re.findall(r"(-?\d\.\d+)\(", row)]
    assert levels[:2] == pytest.approx([0.976, -0.976], abs=0.02)
    stem = "stationary-optimizer-sgd-double-well"
    ensemble = jaxsde.load(tmp_path / f"{stem}-mirror.nc")
    np.testing.assert_array_equal(ensemble.mean("position")[0], [-1.0])
    assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4  # three starts, one figure


def test_no_mean_is_printed_where_none_exists(tmp_path, capsys):
    cauchy = ["--noise", "student-t", "--degrees-of-freedom", "1"]
    run(tmp_path, "sgd", *cauchy, "--learning-rate", "0.2")
    printed = capsys.readouterr().out
    evidence, law = printed.split("The law, from all starts together:")
    assert "mean position" not in evidence
    assert "mean loss" not in printed
    rows = [line for line in law.splitlines() if re.match(r"\s+(loss|position\[\d\])\s", line)]
    assert len(rows) == 11
    for row in rows:
        assert row.count("none shown") == 2  # mean and variance
    assert re.search(r"loss: No mean exists, tail index 0\.\d\d", printed)
    assert "position: No mean is shown to exist, tail index" in printed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--side", "both"], "unknown side 'both'"),
        (["--spread", "0"], "spread must be positive"),
        (["--burn-in", "1"], "burn_in must lie between 0 and 1"),
        (["--steps", "0"], "steps must be a whole number"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, wrong, message):
    with pytest.raises(SystemExit):
        cli.main(["stationary", "sgd", *wrong, "--output", str(tmp_path)])
    assert message in capsys.readouterr().err
