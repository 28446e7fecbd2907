import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxsde.engine import Estimate

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def verdicts(monkeypatch, x64):
    """The benchmark as the command runs it, but for the devices, which tests choose themselves."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("jaxsde.use_all_cores", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)


def module(name):
    return importlib.import_module(f"benchmarks.verdicts.{name}")


def judged(family, name, key=None):
    (formula,) = [f for f in module(family).FORMULAS if f.name == name]
    return module("_judge").judged(formula, key)


def rejudged(found, **changed):
    """The verdict with the cases' fields mapped anew."""
    results = [
        result._replace(
            case=result.case._replace(**{n: f(result.case) for n, f in changed.items()})
        )
        for result in found.results
    ]
    return module("_judge").judgement(found.formula, results)


@pytest.mark.parametrize(
    "family",
    ["gradient_descent", "sign", "adaptive", "scaling", "distributed", "sharpness", "minimax"],
)
def test_every_formula_is_well_formed(family):
    main, page, verdict = module("__main__"), module("_page"), module("_verdict")
    formulas = main.formulas(family)
    assert family in main.FAMILIES
    assert len({formula.name for formula in formulas}) == len(formulas) > 0
    for formula in formulas:
        assert isinstance(formula, verdict.Formula)
        assert formula.kind in verdict.KINDS
        assert all((formula.name, formula.source, formula.printed, formula.holds))
        assert callable(formula.cases)
        assert "\n" not in "".join(page._cell(str(text)) for text in formula[:6])


def test_a_run_writes_the_page_whole(tmp_path, monkeypatch, capsys):
    main, family = module("__main__"), module("sign")
    names = ("loss level of SignSGD", "loss in phase 3", "phase 1 of SignSGD")
    kept = tuple(formula for formula in family.FORMULAS if formula.name in names)
    monkeypatch.setattr(family, "FORMULAS", kept)
    monkeypatch.setattr(module("_simulated"), "PATHS", 4096)
    out = tmp_path / "docs" / "page.md"
    arguments = ["--families", "sign", "--out", str(out), "--results", str(tmp_path / "results")]
    main.main(arguments)
    first = out.read_text()
    assert "3 formulas at" in first
    assert "3 simulations against exact laws" in first
    assert "| bound violated | 1 |" in first
    assert "**bound violated** by a factor 1.253" in first
    assert "## Where the printed form fails" in first
    assert "Alarms" not in first
    assert "python -m benchmarks.verdicts --families sign" in first
    assert str(tmp_path) not in first
    for line in first.splitlines():
        if line.startswith("| **"):
            assert line.replace("\\|", "").count("|") == 9  # eight cells
    (record,) = (tmp_path / "results").glob("verdicts-*.jsonl")
    run, *rows = map(json.loads, record.read_text().splitlines())
    assert run["run"]["seed"] == 0
    sampled = [row for row in rows if row["simulated"] is not None]
    assert len(sampled) == 3
    for row in sampled:  # about one in 10⁵ runs of another seed
        assert abs(row["z"]) < 5
        np.testing.assert_allclose(
            row["z"], (row["simulated"] - row["exact"]) / row["standard_error"]
        )
    main.main(arguments)  # the same seed, the same page
    assert out.read_text() == first
    main.main([*arguments, "--quick"])
    assert "made without simulations" in out.read_text()
    capsys.readouterr()


def test_wrong_formulas_are_wrong_by_the_known_factor():
    found = judged("sign", "loss level of SignSGD")
    assert found.published.word == "bound violated"
    assert found.published.worst == pytest.approx(np.sqrt(np.pi / 2), rel=1e-3)
    assert found.corrected.word == "bound holds"

    found = judged("adaptive", "stationary covariance of AdamW")
    assert found.published.word == "wrong"
    last = found.results[-1]  # θ/ρ₁ = 2, β₁ = 0.99
    assert 1 + last.error() == pytest.approx(1 + 0.99 * 2, rel=2e-3)
    assert found.corrected.worst < 4e-3

    found = judged("adaptive", "loss level of Adam on the L2-regularised loss")
    assert found.published.word == found.corrected.word == "bound holds"
    assert "by a factor 1.615" in found.outside  # B = 1/4: (1/2) 2.6 / (1/2 + 1.6)

    found = judged("gradient_descent", "expected loss of SGD, order 2")
    assert found.published.word == "lower order"
    assert found.corrected.slopes[0] == pytest.approx(2, abs=0.05)


def test_right_formulas_are_right():
    assert judged("sign", "mean sign under Student-t noise").published.word == "exact"
    assert judged("scaling", "covariance of SVAG").published.word == "exact"
    found = judged("gradient_descent", "stationary covariance of SGD")
    assert found.published.word == "leading order"
    np.testing.assert_allclose(found.published.slopes, 1, atol=0.02)
    assert found.corrected.word == "exact"
    assert not found.problems
    found = judged("gradient_descent", "loss bound of SGD")
    assert (found.published.word, found.published.detail) == ("bound holds", "attained")
    assert found.outside == "bound violated by a factor 1.005"  # 1/(1 - η λ/2), η λ = 0.01


def test_a_mutated_correction_is_caught():
    found = judged("sign", "stationary covariance of SignSGD")
    assert not found.problems
    gaussian = [result for result in found.results if "Gaussian" in result.case.setting]
    found = found._replace(results=gaussian)
    lower = "the corrected form is lower order"
    for wrong, problem in (  # κ of the wrong sign; no κ; twice the formula
        (lambda c: 2 * np.sqrt(np.pi / 8) * c.small - c.corrected, lower),
        (lambda c: np.sqrt(np.pi / 8) * c.small, lower),
        (lambda c: 2 * c.corrected, "the corrected form is no better"),
    ):
        assert any(text.startswith(problem) for text in rejudged(found, corrected=wrong).problems)
    found = judged("sign", "loss level of SignSGD")
    assert not found.problems
    (problem,) = rejudged(found, corrected=lambda c: 0.99 * c.corrected).problems
    assert problem == "the corrected bound is violated by a factor 1.01"
    found = judged("adaptive", "stationary covariance of AdamW")
    (problem,) = rejudged(found, corrected=lambda c: c.published).problems[-1:]
    assert problem == "the corrected form is no better than the published one"


def test_an_exact_law_that_simulation_contradicts_is_caught(key):
    judge, verdict = module("_judge"), module("_verdict")

    def formula(simulated, exact=2.0):
        case = verdict.Case("here", 2.0, exact, simulate=lambda key: simulated)
        return verdict.Formula("f", "s", "p", "equality", "h", "", lambda: [case])

    def estimate(value, error):
        return Estimate(np.array(value), np.array(error))

    assert not judge.judged(formula(estimate(2.04, 0.01)), key).problems
    for value in (1.94, 2.06, np.nan):
        (problem,) = judge.judged(formula(estimate(value, 0.01)), key).problems
        assert problem.startswith("simulation and exact law disagree at here")
    alone = formula(estimate(2.04, 0.01), exact=None)
    assert judge.judged(alone, key).published.word == "exact"
    assert judge.judged(formula(estimate(2.5, 0.01), exact=None), key).published.word == "wrong"


def test_slopes_and_slacks():
    judge, verdict = module("_judge"), module("_verdict")

    def word(kind, cases, **options):
        formula = verdict.Formula("f", "s", "p", kind, "h", "", lambda: cases, **options)
        return judge.judged(formula, None).published

    def sweep(power, size=1.0):
        return [verdict.Case("", 1 + size * h**power, 1.0, small=h) for h in (0.4, 0.2, 0.1)]

    found = word("equality", sweep(1) + sweep(2), order=1)  # two sweeps: small rises between
    assert found.word == "leading order"
    np.testing.assert_allclose(found.slopes, [1, 2], rtol=1e-6)
    assert word("equality", sweep(1), order=2).word == "lower order"
    assert word("equality", sweep(0)).word == "wrong"
    assert word("equality", sweep(0, 0.01)).word == "approximate"
    assert word("equality", [verdict.Case("", np.inf, 1.0)]).word == "wrong"
    bounds = [verdict.Case("", 2.0, 1.0), verdict.Case("", 3.0, 2.0)]
    found = word("upper bound", bounds)
    assert (found.word, found.low, found.high) == ("bound holds", 1.5, 2.0)
    found = word("lower bound", bounds)
    assert (found.word, found.worst) == ("bound violated", pytest.approx(2.0))
    assert word("upper bound", [verdict.Case("", -1.0, 1.0)]).detail == "by its sign"


def test_unknown_families_are_refused():
    with pytest.raises(SystemExit, match="unknown family 'signs'; did you mean sign"):
        module("__main__").main(["--families", "signs"])
