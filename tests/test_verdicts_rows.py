"""Rows of the verdicts on agents, sharpness and games: the known factors, and the corrections.

Nothing is simulated: exact laws only.
"""

import functools

import numpy as np
import pytest

from benchmarks.verdicts import _judge, distributed, minimax, sharpness

FAMILIES = (distributed, sharpness, minimax)
FORMULAS = {formula.name: formula for family in FAMILIES for formula in family.FORMULAS}
COUPLING = "ρ between which SEG converges with noise in the coupling"
SLOW = ("gradient of DSGD", "gradient norm below which a saddle captures SAM")
CORRECTED = [name for name, formula in FORMULAS.items() if formula.correction and name not in SLOW]


@functools.cache
def judged(name):
    return _judge.judged(FORMULAS[name], None)


def published_over_exact(name, setting):
    (case,) = [r.case for r in judged(name).results if setting in r.case.setting]
    return case.published / case.exact


@pytest.mark.parametrize(
    ("name", "setting", "factor"),
    [
        # 1 - η |B|²/(2r), B the eigenvalue of the drift: a + iλ (SGDA), a² + λ² (SHGD)
        ("stationary half square of SGDA", "a = 2, λ = 1, η = 0.04", 1 - 0.04 * 5 / 4),
        ("stationary half square of SHGD", "SHGD, a = 0, λ = 2, η = 0.02", 1 - 0.02 * 4 / 2),
        # the same, and the two batches' noise: half of one's, and 1 + ρ² |j|² for (1 - ρ j)²
        ("stationary half square of SHGD", "two batches", 2 * (1 - 0.02 * 4 / 2)),
        (
            "stationary half square of SEG",
            "two batches, a = 3",
            (0.25**2 + 0.25**2) / (1 + 10 / 16) * (1 - 0.02 * 1.25 / 2),
        ),
        ("Hamiltonian under SHGD", "λ = (2.0, 2.0), t = 4", 1 - 0.02 * 4 / 2),
        # σ²/(λ² + σ²) and (λ² + σ²)²/(σ² (2λ² + σ²)), up to η²
        (COUPLING, "least ρ, λ = 2, σ = 1, η = 0.01", 1 / 5),
        (COUPLING, "largest ρ, λ = 2, σ = 1, η = 0.01", 25 / 9),
        # 1 - η λ κ/2, κ = 1 + ρ λ; off the diagonal (a₁ + a₂ - η a₁ a₂)/(2 λ₁ κ₂), aᵢ = λᵢ κᵢ
        ("stationary covariance of USAM", "λ = 4, ρ = 0.5, η = 0.05", 1 - 0.05 * 4 * 3 / 2),
        ("stationary covariance of USAM", "entry (1, 2)", (1.5 + 12 - 0.0125 * 18) / 6),
        ("stationary covariance of USAM", "entry (2, 1)", (1.5 + 12 - 0.0125 * 18) / 12),
        ("covariance of a step of USAM and SAM", "USAM, λ = 2, ρ = 0.1", 1.4 / 1.2**2),
        # (2λ - η λ² (1 + ω/N))/(2λ - η ω λ²/N)
        ("stationary covariance of DCSGD", "N = 1, ω = 3, λ = 1, η = 0.1", 1.6 / 1.7),
        ("loss of DSGD", "H = 2 I, t = 10", 1 - 0.02 * 2 / 2),
        ("largest learning rate of DCSGD", "N = 4, ω = 3", (8 / 3) * (1 + 3 / 4) / 2),
    ],
)  # fmt: skip
def test_printed_forms_are_off_by_the_known_factors(name, setting, factor):
    assert published_over_exact(name, setting) == pytest.approx(factor, rel=2e-4)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ρ of the least stationary variance of SEG", "exact"),
        ("ρ from which on a saddle captures USAM", "exact"),
        ("drift of SAM", "leading order"),
        ("drift of DNSAM", "leading order"),
        ("stationary covariance of DSignSGD", "leading order"),
        ("SEG on a bilinear game converges for every ρ > 0", "wrong"),
        ("SGDA (a > 0) and SHGD converge at every learning rate", "wrong"),
        (COUPLING, "wrong"),
        ("stationary variance of SAM under that covariance", "wrong"),
        ("largest learning rate of DCSGD", "wrong"),
        ("loss of DSignSGD in phase 2", "bound holds"),
        ("loss under the linearised SDE of DSignSGD", "bound holds"),
        ("loss of DSignSGD in phase 3", "bound violated"),
        ("loss under the SDE of DCSGD", "bound holds"),
        ("loss of DCSGD", "bound violated"),
        ("Hamiltonian under the SDE of SHGD", "bound holds"),
        ("Hamiltonian under SHGD", "bound violated"),
    ],
)
def test_verdicts(name, word):
    assert judged(name).published.word == word


@pytest.mark.parametrize("name", CORRECTED)
def test_corrections_pass_and_their_mutants_do_not(name):
    """Mutants: corrected in the wrong direction, off by a half, and a bound 1 % below the truth."""
    found = judged(name)
    assert not found.problems
    if found.corrected is None:  # published is right inside, and corrected beyond
        outside = [r for r in found.results if not r.case.inside]
        for r in outside:
            assert abs(r.error(corrected=True)) < abs(r.error()) / 3
        assert outside
        return
    equality = found.formula.kind == "equality"
    if not equality or found.formula.corrected_order is None:
        assert found.corrected.word == ("exact" if equality else "bound holds")

    def mutated(change):
        results = [
            r._replace(case=r.case._replace(corrected=change(r.case)))
            if r.case.corrected is not None and r.case.exact is not None
            else r
            for r in found.results
        ]
        return _judge.judgement(found.formula, results).problems

    if equality:
        assert mutated(lambda case: np.float64(case.published) ** 2 / case.corrected)
        assert mutated(lambda case: 1.5 * case.corrected)
    else:
        assert mutated(lambda case: 0.99 * case.exact)


def test_published_forms_as_drift_expansions_have_second_order():
    for name in ("drift of USAM", "drift of USAM by batch size", "drift of SAM", "drift of DNSAM"):
        assert min(judged(name).published.slopes) > 1.8
