import re
import warnings

import numpy as np
import pytest

import jaxsde
from jaxsde import cli
from jaxsde.analysis import with_error
from jaxsde.cli._options import setup
from jaxsde.cli._track import Track
from jaxsde.families import FAMILIES
from jaxsde.problems import NAMED

SMALL = ["--steps", "20", "--paths", "2500", "--records", "6"]


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def run(tmp_path, *arguments):
    cli.main(["track", *SMALL, *arguments, "--output", str(tmp_path)])


def test_track_prints_draws_and_saves(tmp_path, capsys):
    run(tmp_path, "sgd")
    printed = capsys.readouterr().out
    for words in ("optimizer", "its law", "law as", "standard errors off"):
        assert words in printed
    assert "…" not in printed  # every number fits a terminal of 80 columns
    assert re.search(r"loss: (the two differ|no difference shown) \(2,500 paths", printed)
    ensemble = jaxsde.load(tmp_path / "track-sgd-quadratic.nc")
    assert ensemble.paths == 2500
    assert ensemble.settings["substeps"] == 4
    last = ensemble.mean("optimizer.loss")[-1]
    assert f"{last:.2f}" in printed
    figure = (tmp_path / "track-sgd-quadratic.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".nc", ".png"]


def test_a_method_for_games_plays_one_unless_told_otherwise(tmp_path, capsys):
    run(tmp_path, "seg")
    printed = " ".join(capsys.readouterr().out.split())
    assert "two players, xᵀ A x/2 + xᵀ B y - yᵀ A y/2" in printed
    assert "closed forms of the first two moments" in printed
    ensemble = jaxsde.load(tmp_path / "track-seg-quadratic-game.nc")
    assert {"difference.loss", "difference.half_square"} < set(ensemble.names)


def test_track_counts_divergence_and_ends_normally(tmp_path, capsys):
    run(tmp_path, "sgd", "--learning-rate", "30")
    printed = capsys.readouterr().out
    assert "none left" in printed
    assert "diverged" in printed
    assert "loss: no verdict, as no path is left on one of the sides from t = " in printed
    assert "Conditional on survival: only 0.0%" in printed
    run(tmp_path, "sgd", "--learning-rate", "0.5", "--steps", "200")  # the SDE survives
    assert "none left" in capsys.readouterr().out
    run(tmp_path, "sgd", "--learning-rate", "1e30")
    assert "inf" in capsys.readouterr().out


def test_student_t_noise_and_float64(tmp_path, capsys):
    import jax

    try:
        run(tmp_path, "sgd", "--noise", "student-t", "--problem", "double-well", "--float64")
    finally:
        jax.config.update("jax_enable_x64", False)
    assert jaxsde.load(tmp_path / "track-sgd-double-well.nc").settings["dtype"] == "float64"
    assert "none known" in capsys.readouterr().out


def cells(estimates):
    """What the table would show of an estimate at the times after the start."""
    return [with_error(*pair) for pair in zip(*estimates, strict=True)][1:]


PARTS = ("optimizer.loss", "sde.loss", "difference.loss")


def test_where_the_mean_may_not_exist_medians_are_shown(tmp_path, capsys):
    run(tmp_path, "sgd", "--noise", "student-t", "--degrees-of-freedom", "2.5")  # E x⁴ is infinite
    printed = capsys.readouterr().out
    ensemble = jaxsde.load(tmp_path / "track-sgd-quadratic.nc")
    for name in PARTS:
        for mean in cells((ensemble.mean(name), ensemble.standard_error(name))):
            assert mean not in printed
    for side in PARTS[:2]:
        assert set(cells(ensemble.median(side))) <= set(printed.split())
    assert "Median loss over the first 2,500 paths" in printed
    text = " ".join(printed.split())
    assert re.search(r"One path in the sample carries \d+% of the variance, so the mean or", text)
    assert re.search(r"(The medians differ|medians shown) \(2,500 paths", text)
    assert max(map(len, printed.split("laws:")[0].splitlines())) <= 80
    assert "laws: known of means only, so not shown beside medians." in printed
    for words in ("Expected loss", "its law", "law as", "The integrator moves", "closed forms"):
        assert words not in printed


def test_where_means_exist_they_are_shown(tmp_path, capsys):
    run(tmp_path, "sgd")
    printed = capsys.readouterr().out
    ensemble = jaxsde.load(tmp_path / "track-sgd-quadratic.nc")
    for name in PARTS:
        shown = cells((ensemble.mean(name), ensemble.standard_error(name)))
        assert set(shown) <= set(printed.split())
    assert "Expected loss over 2,500 paths of each" in printed
    for words in ("edian", "may not exist"):
        assert words not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sgdd"], "unknown optimizer 'sgdd'; did you mean sgd"),
        (["sgd", "--problem", "quadratics"], "did you mean quadratic"),
        (["sgd", "--learning-rate", "-1"], "learning_rate must be positive and finite"),
        (["sgd", "--learning-rate", "nan"], "learning_rate must be positive and finite"),
        (["sgd", "--scale", "0"], "scale must be positive"),
        (["sgd", "--steps", "0"], "steps must be a whole number of at least 1"),
        (["sgd", "--paths", "-5"], "paths must be a whole number of at least 1"),
        (["sgd", "--records", "0"], "records must be a whole number of at least 1"),
        (["sgd", "--substeps", "0"], "substeps must be a whole number of at least 1"),
        (["sgd", "--noise", "student-t", "--degrees-of-freedom", "0"], "degrees_of_freedom"),
        (["sgd", "--noise", "student-t", "--degrees-of-freedom", "2"], "does not exist"),
        (["sgd", "--noise", "laplace"], "unknown noise 'laplace'"),
        (["sgd", "--learning-rate", "abc"], "could not convert string to float: 'abc'"),
        (["sgd", "--learning-rate", "1e-60"], "learning_rate must be positive and finite"),
        (["sgd", "--seed", "-1"], "seed must lie in"),
        (["seg", "--problem", "quadratic"], "Quadratic is no game of two players"),
        (["sam", "--hyperparameters", "rho", "-1"], "rho must be finite and not negative"),
        (["sgd", "--nosuch", "1"], "--nosuch"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["track", *SMALL, *arguments, "--output", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_no_folder_is_refused_before_the_run(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "file", "sgd")
    assert ended.value.code == 2
    assert "is no folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_hyperparameters_that_are_zero_go_unsaid(tmp_path):
    values = {"b1": 0.5, "weight_decay": 0.0}
    about = setup(Track("adamw", hyperparameters=values, output=tmp_path)).about
    assert "b1 = 0.5, b2 = 0.99" in about
    assert "weight_decay" not in about


def test_hyperparameters_and_warm_up_reach_the_run_and_a_warning_is_one_line(tmp_path, capsys):
    values = ["--learning-rate", "0.4", "--hyperparameters", "agents", "1", "--warm-up", "20"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run(tmp_path, "dcsgd-random-k", *values)
    printed = capsys.readouterr()
    line = printed.err.splitlines()[0]
    assert line.startswith("jaxsde: warning: learning_rate * omega * eigenvalue")
    assert ">= 2 N = 2:" in line
    assert "agents = 1, k = 1" in printed.out
    ensemble = jaxsde.load(tmp_path / "track-dcsgd-random-k-quadratic.nc")
    assert not ensemble.variance("difference.loss").any()  # warmed up to the end: one path


@pytest.mark.parametrize(
    ("family", "message"),
    [("sgd", "no hyperparameters beside the learning rate"), ("adam", "unknown hyperparameter")],
)
def test_hyperparameters_that_a_family_lacks_are_refused(family, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(tmp_path, family, "--hyperparameters", "beta", "0.5")
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_names_every_choice(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["track", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in (*FAMILIES, *NAMED, "gaussian", "student-t"):
        assert name in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.034261, 0.000113, "0.03426(11)"),
        (13.75, 0.0, "13.75"),
        (123.456, 4.0, "123.5(40)"),
        (np.nan, np.nan, "none left"),
        (1e30, np.inf, "1e+30"),
        (123.4, 12.0, "123(12)"),
        (54321.0, 1234.0, "54321(1234)"),
        (1.047e10, 2e9, "1.05(20)e+10"),
        (-5.344e12, 9.1e13, "-0.5(91)e+13"),
        (2.4769e-11, 4.1e-13, "2.477(41)e-11"),
        (1.0, 1e-13, "1"),
        (0.0, 0.0, "0"),
        (0.0, 1e-14, "0.0(10)e-14"),
    ],
)
def test_numbers_carry_their_error(value, error, text):
    assert with_error(value, error) == text
