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


def test_a_figure_that_cannot_be_written_leaves_nothing(ensemble, tmp_path):
    figure = plotting.track(ensemble, compare(ensemble))
    with pytest.raises(ValueError, match="nosuch"):
        plotting.save(figure, tmp_path / "figure.nosuch")
    assert not list(tmp_path.iterdir())
    plotting.save(figure, tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
