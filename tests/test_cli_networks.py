"""The command on networks, on a tiny one: what it prints, draws, keeps and refuses."""

import contextlib
import io
import re
import sys

import equinox as eqx
import jax
import numpy as np
import pytest

import jaxsde
from jaxsde import cli, engine, problems
from jaxsde.analysis import with_error
from jaxsde.cli import _console, _track
from jaxsde.cli._options import setup
from jaxsde.oracles import MinibatchNoise

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(12, 3)).astype(np.float32), RNG.integers(0, 3, 12)
VALUES = RNG.normal(size=(12, 3)).astype(np.float32)
SCALE, SIZE = 0.05, 12
STEPS, RATE = 6, 1e-3
RUN = ("rmsprop", "--problem", "tiny", "--warm-up", "1")


def squared(output, target):
    return ((output - target) ** 2).sum()


def classifier():
    model = eqx.nn.Linear(3, 3, key=jax.random.key(0))
    return problems.Network(model, problems.cross_entropy, INPUTS, LABELS)


def regression():
    return problems.Network(eqx.nn.Linear(3, 3, key=jax.random.key(0)), squared, INPUTS, VALUES)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """Two tiny networks by name; blocks of two steps, and a checkpoint after each."""
    with pytest.MonkeyPatch.context() as patch:
        rates = problems.NAMED["digits-cnn"].learning_rates
        for name, make in (("tiny", classifier), ("line", regression)):
            named = problems.Named(make, None, SCALE, 4, "tiny", STEPS, 2, 3, rates)
            patch.setitem(problems.NAMED, name, named)
        patch.setattr("jaxsde.engine.plan.BLOCK", 1)
        patch.setattr("jaxsde.engine.checkpoint.PAUSE", 0)
        patch.setattr("jaxsde.engine.checkpoint.SHARE", 1e9)
        # The digest of the program is not looked at here, and takes most of the time.
        patch.setattr(sys.modules["jaxsde.engine.simulate"], "_program", lambda *run: "")
        patch.setenv("COLUMNS", "80")
        yield


def run(folder, *arguments, command="track"):
    cli.main([command, *arguments, "--output", str(folder)])


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run that nothing stopped: its folder, what it printed, and on standard error."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_track, "progress_bar", lambda what: contextlib.nullcontext(None))
        text, notes = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(notes):
            run(folder, *RUN)
    return folder, text.getvalue(), notes.getvalue()


def loaded(folder, suffix=""):
    return jaxsde.load(folder / f"track-rmsprop-tiny{suffix}.nc")


def cells(ensemble, *names):
    """What a table shows of observables at the last time."""
    pairs = [(ensemble.mean(name)[-1], ensemble.standard_error(name)[-1]) for name in names]
    return [with_error(*pair) for pair in pairs]


def last_rows(printed):
    """The cells of every table's last row, after the step."""
    rows = [line.split() for line in printed.splitlines()]
    return [row[1:] for row in rows if row[:1] == [str(STEPS)]]


def test_losses_and_all_else_watched_are_printed_with_their_errors(whole):
    folder, printed, _ = whole
    ensemble, older = loaded(folder), loaded(folder, "-older")
    losses, others = last_rows(printed)
    sides = cells(ensemble, "optimizer.loss", "sde.loss") + cells(older, "sde.loss")
    differences = cells(ensemble, "difference.loss") + cells(older, "difference.loss")
    assert losses == sides + differences
    assert others == cells(
        ensemble, *(f"{side}.{name}" for name in ("gradient_norm", "accuracy")
                    for side in ("optimizer", "sde"))
    )  # fmt: skip
    assert f"tr Σ = {SIZE * SCALE**2:.4g} at every point" in printed
    assert "Expected loss over 4 paths of each" in printed
    assert max(map(len, printed.split("figure:")[0].splitlines())) <= 80
    assert "…" not in printed
    assert (folder / "track-rmsprop-tiny.png").read_bytes().startswith(b"\x89PNG")


def test_each_sde_has_its_verdict(whole):
    printed = " ".join(whole[1].split())
    own, older = printed.split("The SDE: RMSprop and its SDE.")[1].split("The older SDE: ")
    assert older.startswith("RMSprop and its batch-equivalent SDE, t = k η².")
    for verdict in (own, older):
        for name in ("loss", "gradient_norm", "accuracy"):
            assert re.search(rf"{name}: (the two differ|no difference shown) \(4 paths", verdict)


def test_the_older_sde_meets_the_same_optimizer_step_by_step(whole):
    ensemble, older = loaded(whole[0]), loaded(whole[0], "-older")
    np.testing.assert_array_equal(ensemble.step, older.step)
    np.testing.assert_array_equal(ensemble.step, [0, 2, 4, 6])
    for name in ("optimizer.loss", "optimizer.accuracy"):
        np.testing.assert_allclose(ensemble.mean(name), older.mean(name), rtol=1e-6)
        np.testing.assert_allclose(ensemble.sample[name], older.sample[name], rtol=1e-6)
    assert ensemble.settings["sides"]["sde"]["dt"] == pytest.approx(RATE / 2)
    assert older.settings["sides"]["sde"]["dt"] == pytest.approx(RATE**2 / 2)
    assert not np.allclose(ensemble.mean("sde.loss"), older.mean("sde.loss"), rtol=1e-3)


def test_the_last_line_tells_time_and_memory(whole):
    assert re.fullmatch(r"took [\d,]+ s, [\d,]+ MiB of memory at its peak\n", whole[2])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch):
    with open("/proc/self/status") as status:
        held = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))
    assert _console.peak_memory() == pytest.approx(held, rel=0.05)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 1024 * _console.peak_memory() == pytest.approx(held, rel=0.05)


class Stopped(Exception):
    pass


def stop_after(monkeypatch, calls):
    """Has the bar raise at that call; returns what it was told until then."""
    seen = []

    def tell(progress):
        seen.append(progress)
        if len(seen) == calls:
            raise Stopped

    monkeypatch.setattr(_track, "progress_bar", lambda what: contextlib.nullcontext(tell))
    return seen


def assert_same(folder, reference):
    for suffix in ("", "-older"):
        found, expected = loaded(folder, suffix), loaded(reference, suffix)
        for name in expected.names:
            np.testing.assert_array_equal(found.sample[name], expected.sample[name])
            np.testing.assert_array_equal(found.mean(name), expected.mean(name))
            np.testing.assert_array_equal(found.variance(name), expected.variance(name))


def test_an_interrupted_run_goes_on_and_gives_the_same(whole, tmp_path, monkeypatch, capsys):
    again = (*RUN, "--checkpoint", str(tmp_path / "kept.npz"))
    blocks = stop_after(monkeypatch, -1)
    run(tmp_path, *again)
    each = len(blocks) // 2  # of one of the two runs
    assert each >= 3
    for name in ("kept.npz", "kept-older.npz"):
        (tmp_path / name).unlink()

    stop_after(monkeypatch, 3)  # in the run of the SDE, after two blocks
    with pytest.raises(Stopped):
        run(tmp_path, *again)
    stop_after(monkeypatch, each - 2 + 3)  # in that of the older one, after two blocks
    with pytest.raises(Stopped):
        run(tmp_path, *again)
    last = stop_after(monkeypatch, -1)
    for file in tmp_path.glob("*.nc"):
        file.unlink()
    run(tmp_path, *again)
    assert len(last) == each - 2
    assert all(progress.resumed > 0 for progress in last)
    assert_same(tmp_path, whole[0])
    run(tmp_path, *again)  # all is there, so no block runs
    assert len(last) == each - 2


@pytest.mark.parametrize(
    ("file", "fault"),
    [("kept.npz", "truncated"), ("kept.npz", "foreign"), ("kept-older.npz", "truncated")],
)
def test_a_checkpoint_that_is_none_of_this_run_is_refused_untouched(
    file, fault, checkpoints, tmp_path, capsys
):
    for name, content in checkpoints.items():
        (tmp_path / name).write_bytes(content)
    content = checkpoints[file]
    content = content[:-99] if fault == "truncated" else content
    (tmp_path / file).write_bytes(content)
    other = ("--seed", "1") if fault == "foreign" else ()
    with pytest.raises(SystemExit) as end:
        run(tmp_path, *RUN, *other, "--checkpoint", str(tmp_path / "kept.npz"))
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert file in error
    assert ("is another run's: its key" if other else "is damaged or no checkpoint") in error
    assert (tmp_path / file).read_bytes() == content


@pytest.fixture(scope="module")
def checkpoints(whole, tmp_path_factory):
    """Those of a finished run, by name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run(folder, *RUN, "--checkpoint", str(folder / "kept.npz"))
    return {file.name: file.read_bytes() for file in folder.glob("*.npz")}


def test_mini_batches_have_their_trace_watched(tmp_path, capsys):
    run(tmp_path, "sign_sgd", "--problem", "line", "--noise", "minibatch", "--batch-size", "3")
    printed = capsys.readouterr().out
    heading = " ".join(printed.split())
    assert "mini-batches of 3, their variances every 10 steps of the SDE" in heading
    assert "at every point" not in printed
    ensemble = jaxsde.load(tmp_path / "track-sign_sgd-line.nc")
    watched = cells(ensemble, "optimizer.noise_trace", "sde.noise_trace")
    assert [row[-2:] for row in last_rows(printed)][-1] == watched
    model = regression().x0
    W, b = np.asarray(model.weight, float), np.asarray(model.bias, float)
    off = 2 * (INPUTS @ W.T + b - VALUES)  # ∇_b of each term; ∇_W is its product with the input
    terms = np.concatenate([np.einsum("ni,nj->nij", off, INPUTS).reshape(12, -1), off], axis=1)
    trace = terms.var(axis=0).sum() / 3
    np.testing.assert_allclose(ensemble.mean("optimizer.noise_trace")[0], trace, rtol=1e-5)
    assert "variance_every=Array(10" in ensemble.settings["process"]
    assert not (tmp_path / "track-sign_sgd-line-older.nc").exists()


def options(*arguments, tmp_path):
    return cli._parse(["track", *arguments, "--output", str(tmp_path)])


def test_mini_batches_of_any_finite_sum(tmp_path):
    for problem in ("breast-cancer", "line"):
        found = setup(options("adamw", "--problem", problem, "--noise", "minibatch",
                              tmp_path=tmp_path))  # fmt: skip
        assert isinstance(found.oracle(), MinibatchNoise)
        assert (found.batch_size, found.variance_every, found.scale) == (32, 10, None)
    found = setup(options("adamw", "--problem", "line", "--noise", "minibatch",
                          "--variance-every", "3", tmp_path=tmp_path))  # fmt: skip
    assert found.variance_every == 3
    sgd = options("sgd", "--problem", "line", "--noise", "minibatch", tmp_path=tmp_path)
    assert setup(sgd).variance_every is None  # its SDE asks for none


def test_laws_are_of_added_noise_on_vectors(tmp_path):
    def law(*arguments):
        return setup(options("sgd", *arguments, tmp_path=tmp_path)).laws(0.1, np.ones(1)).optimizer

    assert law("--problem", "breast-cancer") is not None
    assert law("--problem", "breast-cancer", "--noise", "minibatch") is None
    assert law("--problem", "line") is None


def test_records_are_even_in_time_or_in_its_logarithm(tmp_path):
    chosen = options("sgd", "--steps", "40", "--records", "4", tmp_path=tmp_path)
    found = setup(chosen)
    np.testing.assert_array_equal(_track._records(chosen, found, True), [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(_track._records(chosen, found, False), [0, 2, 6, 14, 40])


def test_settings_of_a_first_run_are_the_problems(tmp_path):
    found = setup(options("adamw", "--problem", "line", tmp_path=tmp_path))
    assert (found.learning_rate, found.paths, found.scale) == (1e-3, 4, SCALE)
    assert setup(options("sgd", "--problem", "line", tmp_path=tmp_path)).learning_rate == 0.1
    assert setup(options("sgd", tmp_path=tmp_path)).learning_rate == 0.05
    chosen = options("adamw", "--problem", "line", "--learning-rate", "0.3", tmp_path=tmp_path)
    assert setup(chosen).learning_rate == 0.3


def test_the_older_sde_is_run_where_it_is_known_and_wanted(tmp_path):
    def older(*arguments):
        chosen = options(*arguments, tmp_path=tmp_path)
        return _track._older(chosen, setup(chosen))

    assert older("adamw") is None
    assert older("adamw", "--older", "True").clock == 2
    assert older("adamw", "--problem", "line").clock == 2
    assert older("adamw", "--problem", "line", "--older", "False") is None
    assert older("sgd", "--problem", "line") is None
    l2 = ("--hyperparameters", "l2_regularization", "0.1")  # which the older SDE lacks
    assert older("adamw", "--problem", "line", *l2) is None


TRACK, BATCHES = ("track", "sgd"), ("--noise", "minibatch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRACK, *BATCHES), "Quadratic is no finite sum"),
        ((*TRACK, "--problem", "line", *BATCHES, "--batch-size", "0"), "batch_size must be"),
        ((*TRACK, "--problem", "line", *BATCHES, "--scale", "1"), "scale is for added noise"),
        ((*TRACK, "--batch-size", "3"), "are for --noise minibatch"),
        ((*TRACK, "--variance-every", "3"), "are for --noise minibatch"),
        ((*TRACK, "--problem", "line", *BATCHES, "--variance-every", "3"), "no variance_every"),
        (("track", "adam", "--problem", "line", *BATCHES, "--variance-every", "0"),
         "variance_every must be a whole number of at least 1"),
        ((*TRACK, "--older", "True"), "no older SDE beside sgd: none was published"),
        (("track", "adam", "--older", "True", "--hyperparameters", "l2_regularization", "0.1"),
         "no older SDE beside adam: adam-batch-equivalent has no l2_regularization"),
        (("weak-order", "sgd", "--problem", "line"), "give --paths"),
        (("weak-order", "adam-batch-equivalent", "--problem", "breast-cancer", *BATCHES),
         "noise grows as 1/η, which that of mini-batches cannot"),
        (("sweep", "sgd", "--problem", "line", *BATCHES, "--grid", "scale", "1,2"),
         "unknown hyperparameter 'scale'"),
        (("track", "seg", "--problem", "line"), "is no game of two players"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--output", str(tmp_path)])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.slow
def test_sweeps_take_the_networks_settings(tmp_path, capsys):
    grid = ("--grid", "learning_rate", "0.1,0.2")
    run(tmp_path, "sgd", "--problem", "line", *grid, command="sweep")
    assert "after 6 steps, over 4 paths" in " ".join(capsys.readouterr().out.split())


def test_stationarity_is_looked_at_from_the_networks_start(tmp_path, capsys):
    run(tmp_path, "sgd", "--problem", "line", "--records", "10", command="stationary")
    assert "100 paths from each of 3 starts" in " ".join(capsys.readouterr().out.split())
    start = jaxsde.load(tmp_path / "stationary-optimizer-sgd-line-x0.nc")
    loss = float(regression().loss(regression().x0))
    np.testing.assert_allclose(start.mean("loss")[0], loss, rtol=1e-6)
    assert start.step[-1] == 2 * STEPS


def test_the_status_tells_pace_and_losses():
    means = {"optimizer.loss": 0.51234, "sde.loss": 0.61234, "difference.loss": -0.1}
    progress = engine.Progress(500, 1000, 2.0, means)
    assert _console.status(progress, None) == "250 path-steps/s, loss 0.512 | 0.612"
    assert _console.status(progress, 1234.5) == "1,234 path-steps/s, loss 0.512 | 0.612"
    assert _console.status(engine.Progress(5, 10, 1.0), None) == "5 path-steps/s"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_follows_a_run_on_a_terminal_and_elsewhere(terminal, monkeypatch, capsys):
    for name in ("FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
        if terminal:
            monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with _console.progress_bar("older") as show:
        show(engine.Progress(0, 1000, 0.5))
        show(engine.Progress(500, 1000, 2.0, {"optimizer.loss": 0.5, "sde.loss": 0.25}))
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    if terminal:
        assert "simulating older" in printed
        assert "50%" in printed
        assert re.search(r"[\d,]+ path-steps/s, loss 0.5 \| 0.25", printed)
    else:
        assert "50%" not in printed


def test_networks_under_mini_batches_have_an_eps_that_dead_units_survive(tmp_path):
    """Where V = 0 a first gradient is divided by eps alone."""

    def eps(problem, noise="minibatch", **given):
        options = _track.Track(
            "rmsprop", problem=problem, noise=noise, hyperparameters=given, output=tmp_path
        )
        return setup(options).settings["eps"]

    assert eps("tiny") == 1e-3
    assert eps("tiny", eps=1e-5) == 1e-5
    assert eps("tiny", noise="gaussian") == eps("breast-cancer") == 1e-8


def test_weak_orders_hold_no_variances(tmp_path, capsys):
    words = ("rmsprop", "--problem", "tiny", "--noise", "minibatch", "--paths", "4096")
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *words, "--variance-every", "5", command="weak-order")
    assert ended.value.code == 2
    assert "variances are of every step" in capsys.readouterr().err
