import jax
import numpy as np
import optax
import pytest

from jaxsde import OptimizerProcess, Paired, SDEProcess, compare, plotting, simulate
from jaxsde.families import Laws
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SGD


@pytest.fixture(scope="module")
def ensemble():
    oracle = GaussianNoise(Quadratic([1.0, 2.0]), 0.4)
    pair = Paired(
        OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle),
        SDEProcess(SGD(oracle, 0.1), 0.05),
        2,
    )
    return simulate(
        pair, np.ones(2, np.float32), steps=10, paths=200, key=jax.random.key(1), records=5
    )


def test_the_figure_shows_what_was_computed(ensemble):
    comparison = compare(ensemble)
    law = ensemble.mean("optimizer.loss")
    laws = Laws(law, None, 0.05, about="")
    figure = plotting.track(ensemble, comparison, laws, ensemble.time, title="a title")
    mean, final, difference = figure.axes
    lines = {line.get_label(): line for line in mean.get_lines()}
    np.testing.assert_array_equal(lines["optimizer"].get_ydata(), law[1:])
    np.testing.assert_array_equal(lines["SDE"].get_ydata(), ensemble.mean("sde.loss")[1:])
    np.testing.assert_array_equal(lines["law of the optimizer"].get_ydata(), law[1:])
    assert lines["law of the SDE, stationary level"].get_ydata()[0] == 0.05
    value = comparison.differences["loss"].value[1:]
    np.testing.assert_array_equal(difference.get_lines()[1].get_ydata(), value)
    assert mean.get_ylabel() == "expected loss"
    assert difference.get_ylabel() == "loss: optimizer - SDE"
    assert final.get_title() == "law at time 1"
    assert final.get_legend_handles_labels()[1] == ["optimizer", "SDE"]


def test_where_the_mean_may_not_exist_the_figure_shows_medians():
    oracle = StudentTNoise(Quadratic([1.0, 2.0]), 0.4, 2.2)
    pair = Paired(
        OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle),
        SDEProcess(SGD(oracle, 0.1), 0.05),
        2,
    )
    ensemble = simulate(
        pair, np.ones(2, np.float32), steps=10, paths=2500, key=jax.random.key(2), records=5
    )
    laws = Laws(ensemble.mean("optimizer.loss"), None, 0.05, about="")
    figure = plotting.track(ensemble, compare(ensemble), laws, ensemble.time)
    values, _, difference = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in values.get_lines()}
    assert set(lines) == {"optimizer", "SDE"}
    median = [ensemble.median(f"{side}.loss").value[1:] for side in ("optimizer", "sde")]
    np.testing.assert_array_equal(lines["optimizer"], median[0])
    np.testing.assert_array_equal(lines["SDE"], median[1])
    np.testing.assert_array_equal(difference.get_lines()[1].get_ydata(), median[0] - median[1])
    assert values.get_ylabel() == "median loss; the mean may not exist"
    assert difference.get_ylabel() == "median loss: optimizer - SDE"


def test_training_shows_every_side_over_the_steps(ensemble):
    oracle = GaussianNoise(Quadratic([1.0, 2.0]), 0.4)
    pair = Paired(
        OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle),
        SDEProcess(SGD(oracle, 0.1), 0.05),
        2,
    )
    watched = {"loss": oracle.problem.loss, "accuracy": oracle.problem.loss, "extra": np.sum}
    run = simulate(
        pair, np.ones(2, np.float32), steps=10, paths=200, key=jax.random.key(1), records=5,
        observables=watched | {"gradient_norm": oracle.problem.norms},
    )  # fmt: skip
    assert plotting.others(run) == ["gradient_norm", "accuracy", "extra"]
    older = plotting.Tracked(ensemble, compare(ensemble))
    ours = plotting.Tracked(run, compare(run))
    figure = plotting.training(ours, title="a title")
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    assert set(panels) == {
        "loss", "gradient norm |∇f|", "accuracy", "extra", "difference of losses"
    }  # fmt: skip
    for name in ("loss", "accuracy", "extra"):
        axes = panels[name]
        lines = {line.get_label(): line for line in axes.get_lines()}
        for label, side in (("optimizer", "optimizer"), ("SDE", "sde")):
            name_of = f"{side}.{name}"
            np.testing.assert_array_equal(lines[label].get_xdata(), run.step)
            np.testing.assert_array_equal(lines[label].get_ydata(), run.mean(name_of))
        spread, error = (band.get_paths()[0].vertices[:, 1] for band in axes.collections[:2])
        low, high = (run.quantile(f"optimizer.{name}", q).value for q in (0.1, 0.9))
        assert set(low) | set(high) <= set(spread)
        mean, s = run.mean(f"optimizer.{name}"), run.standard_error(f"optimizer.{name}")
        assert set(mean - 2 * s) | set(mean + 2 * s) <= set(error)
    alone = plotting.training(older, older)  # nothing but the loss, and a baseline
    loss, difference = alone.axes
    lines = {line.get_label(): line.get_ydata() for line in loss.get_lines()}
    np.testing.assert_array_equal(lines["older SDE"], ensemble.mean("sde.loss"))
    labels = [line.get_label() for line in difference.get_lines()[1:]]
    assert labels == ["optimizer - SDE", "optimizer - older SDE"]
    its = older.comparison.differences["loss"]
    np.testing.assert_array_equal(difference.get_lines()[2].get_ydata(), its.value)
    band = difference.collections[0].get_paths()[0].vertices[:, 1]
    assert set(its.lower) | set(its.upper) <= set(band)


def test_a_figure_that_cannot_be_written_leaves_nothing(ensemble, tmp_path):
    figure = plotting.track(ensemble, compare(ensemble))
    with pytest.raises(ValueError, match="nosuch"):
        plotting.save(figure, tmp_path / "figure.nosuch")
    assert not list(tmp_path.iterdir())
    plotting.save(figure, tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
