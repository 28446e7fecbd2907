import jax
import numpy as np
import optax
import pytest
import xarray

from jaxsde import OptimizerProcess, cli, plotting
from jaxsde.analysis import sweep
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic

SMALL = ["--steps", "20", "--paths", "64", "--records", "4"]
GRID = ["--grid", "learning_rate", "0.01:0.1:2", "scale", "0.1,1,5"]


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def run(tmp_path, *arguments):
    cli.main(["sweep", "sgd", *SMALL, *arguments, "--output", str(tmp_path)])


def test_a_sweep_is_printed_drawn_and_saved_and_resumes(tmp_path, capsys):
    file = tmp_path / "kept" / "sweep.npz"
    run(tmp_path, *GRID, "--checkpoint", str(file))
    printed = capsys.readouterr().out
    assert "Expected loss after 20 steps, over 64 paths" in printed
    rows = [line.split() for line in printed.splitlines() if "(" in line and "0." in line]
    table = [row for row in rows if len(row) == 5]
    assert [row[:2] for row in table] == [
        [rate, scale] for rate in ("0.01", "0.1") for scale in ("0.1", "1", "5")
    ]
    data = xarray.load_dataset(tmp_path / "sweep-sgd-quadratic.nc", engine="h5netcdf")
    np.testing.assert_allclose(data["learning_rate"], [0.01, 0.1])
    assert data["optimizer.loss.mean"].dims == ("learning_rate", "scale", "step")
    assert table[0][2].startswith(f"{float(data['optimizer.loss.mean'][0, 0, -1]):.2f}")
    assert (tmp_path / "sweep-sgd-quadratic.png").read_bytes().startswith(b"\x89PNG")
    saved = file.read_bytes()
    run(tmp_path, *GRID, "--checkpoint", str(file))
    assert capsys.readouterr().out == printed
    assert file.read_bytes() == saved
    with pytest.raises(SystemExit):
        run(tmp_path, *GRID, "--checkpoint", str(file), "--seed", "1")
    assert "another run's: its key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --grid NAME VALUES"),
        (["--grid", "rate", "1"], "unknown hyperparameter 'rate'"),
        (["--grid", "scale", "a"], "must be a list 0.1,1,10 or LOW:HIGH:COUNT, got 'a'"),
        (["--grid", "scale", "1:2"], "must be a list"),
        (["--grid", "scale", "0:1:3"], "must be positive"),
        (["--grid", "scale", "1,-1"], "at scale = -1: scale must be positive"),
        (["--grid", "scale", "1", "--scale", "2"], "scale is given twice"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        run(tmp_path, *arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.fixture(scope="module")
def swept():
    def factory(learning_rate, scale):
        oracle = GaussianNoise(Quadratic([1.0, 2.0]), scale)
        return OptimizerProcess(optax.sgd, {"learning_rate": learning_rate}, oracle)

    grid = {"learning_rate": np.geomspace(0.01, 1e12, 9), "scale": np.geomspace(0.1, 10, 8)}
    x0 = np.ones(2, np.float32)
    return sweep(factory, grid, x0, steps=8, paths=32, key=jax.random.key(0), records=2)


def test_curves_show_the_means_and_leave_out_what_diverged(swept):
    (axes,) = plotting.sweep(swept.isel(scale=[0, 5])).axes
    lines = [container[0] for container in axes.containers]
    assert [container.get_label() for container in axes.containers] == [
        "scale = 0.1",
        "scale = 2.683",
    ]
    means = swept["loss.mean"].isel(scale=[0, 5], step=-1)
    for line, mean in zip(lines, means.transpose(), strict=True):
        whole = np.isfinite(line.get_ydata())
        np.testing.assert_array_equal(line.get_ydata()[whole], mean[whole])
        assert 1 < whole.sum() < 9
        assert whole[:2].all()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "points with diverged paths left out" in axes.get_ylabel()
    partly = swept.isel(scale=[0]).copy(deep=True)
    partly["loss.used"][1, 0, -1] = 31
    (axes,) = plotting.sweep(partly).axes
    shown = np.isfinite(axes.containers[0][0].get_ydata())
    assert shown.tolist()[:2] == [True, False]
    (single,) = plotting.sweep(swept.isel(scale=0, learning_rate=[0, 1]), step=4).axes
    assert single.get_ylabel() == "expected loss after 4 steps"
    assert not single.get_legend()


def test_two_long_axes_make_a_heat_map(swept):
    figure = plotting.sweep(swept, title="a title")
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("scale", "learning_rate")
    assert bar.get_ylabel().startswith("expected loss after 8 steps")
    figure.draw_without_rendering()


def test_a_figure_refuses_what_it_cannot_show(swept):
    for data, arguments, message in (
        (swept, {"observable": "los"}, "unknown observable 'los'"),
        (swept, {"observable": "position"}, "has components"),
        (swept, {"step": 3}, "step 3 was not recorded"),
        (swept.isel(scale=0, learning_rate=0), {}, "one or two hyperparameters, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            plotting.sweep(data, **arguments)
