import warnings

import jax
import pytest
import xarray

from jaxsde import cli


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    yield
    jax.config.update("jax_enable_x64", False)


def test_weak_order_prints_draws_and_saves(tmp_path, capsys):
    arguments = ["weak-order", "sgd", "--paths", "4096", "--levels", "2"]
    rates = ["--learning-rates", "0.1", "0.05", "0.025", "--time", "0.2"]
    cli.main([*arguments, *rates, "--problem", "double-well", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    for words in ("learning", "integrator", "gain", "loss: weak order"):
        assert words in printed
    study = xarray.open_dataset(tmp_path / "weak-order-sgd-double-well.nc", engine="h5netcdf")
    assert list(study["steps"].values) == [2, 4, 8]
    assert study.attrs["verdict"] in " ".join(printed.split())
    assert (tmp_path / "weak-order-sgd-double-well.png").read_bytes().startswith(b"\x89PNG")


def test_averages_keep_their_time_and_noise_its_scale(tmp_path, monkeypatch):
    """1 - β in proportion to the step; where a step is η², σ and ε as 1/η."""
    seen = {}

    def stop(optimizer, sde, x0, **settings):
        seen.update(settings)
        seen["sides"] = [(optimizer(eta), sde(eta)) for eta in settings["learning_rates"]]
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxsde.cli._weak_order.weak_error", stop)
    command = ["weak-order", "--output", str(tmp_path), "--learning-rates", "0.02", "0.01"]
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        cli.main([*command, "rmsprop-batch-equivalent"])
    (a, first), (b, _) = seen["sides"]
    for name, ratio in (("eps", 0.5), ("decay", None)):
        values = [float(side.hyperparameters[name]) for side in (a, b)]
        share = values[0] / values[1] if ratio else (1 - values[1]) / (1 - values[0])
        assert share == pytest.approx(ratio or 0.25, rel=1e-4)
    assert float(b.oracle.scale / a.oracle.scale) == pytest.approx(2, rel=1e-6)
    assert float(first.decay) == pytest.approx(float(a.hyperparameters["decay"]))
    assert seen["warm_up"] == pytest.approx(seen["time"] / 2)  # its family takes over late


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--time", "-1"], "time"),
        (["--learning-rates", "0.1", "0.03"], "no multiple of the step"),
        (["--learning-rates", "0.1"], "at least two"),
        (["--levels", "1"], "levels"),
    ],
)
def test_bad_options_end_in_one_line(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        cli.main(["weak-order", "sgd", *arguments, "--output", str(tmp_path)])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("jaxsde: error:")
    assert words in error
    assert "\n" not in error
