"""SGD, with momentum and at the second order of its SDE."""

from benchmarks.verdicts import _gradient_descent_cases as settings
from benchmarks.verdicts._verdict import Formula

COMPAGNONI = "Compagnoni et al. 2025, arXiv 2411.15958"
LI = "Li, Tai & E 2019, arXiv 1811.01558"
HELLWIG = "Hellwig, Relations between variants of SGD and SDEs, master's thesis"
_QUADRATIC = "quadratics, η λ ≪ 1; any noise of covariance Σ"
_WEAK = "smooth f, any fixed time, η → 0"
_MOMENTUM = "smooth f, friction μ = (1 - β)/√η fixed, t = k √η, η → 0"

FORMULAS = (
    Formula(
        "mean of SGD on a quadratic",
        f"{COMPAGNONI}, Lemma 3.8",
        "E X_t = e^(-Ht) x₀",
        "equality",
        _QUADRATIC,
        "(I - ηH)^k x₀",
        settings.mean_cases,
        order=1,
    ),
    Formula(
        "covariance of SGD on a quadratic",
        f"{COMPAGNONI}, Lemma 3.8",
        "Cov X_t = (η/2) H⁻¹ Σ (I - e^(-2Ht))",
        "equality",
        _QUADRATIC,
        "η σ² (1 - (1 - ηλ)^(2k)) / (λ (2 - ηλ))",
        settings.covariance_cases,
        order=1,
    ),
    Formula(
        "stationary covariance of SGD",
        f"{COMPAGNONI}, Lemma 3.8",
        "Cov X = (η/2) H⁻¹ Σ",
        "equality",
        _QUADRATIC,
        "η σ² / (λ (2 - ηλ))",
        settings.stationary_cases,
        order=1,
    ),
    Formula(
        "expected loss of SGD, order 1",
        f"{LI}; printed in {HELLWIG}",
        "E f = w₀ᵀ H e^(-2tH) w₀/2 + (η/4) Σ λᵢ² (1 - e^(-2λᵢt))",
        "equality",
        "f = wᵀHw/2, Σ = H², η → 0",
        "",
        settings.first_order_loss_cases,
        order=1,
    ),
    Formula(
        "expected loss of SGD, order 2",
        HELLWIG,
        "E f = w₀ᵀ H e^(-(2H+ηH²)t) w₀/2 + (η/2) Σ λᵢ/(2+ηλᵢ) (1 - e^(-λᵢ(2+ηλᵢ)t))",
        "equality",
        "f = wᵀHw/2, Σ = H², η → 0",
        "λᵢ² for λᵢ in the numerator",
        settings.second_order_loss_cases,
        order=2,
        corrected_order=2,
    ),
    Formula(
        "SDE of SGD, order 1",
        LI,
        "dX = -∇f dt + √η Σ^(1/2) dW: error ≤ C η",
        "equality",
        _WEAK,
        "",
        lambda: settings.weak_cases(1),
        order=1,
    ),
    Formula(
        "SDE of SGD, order 2",
        LI,
        "dX = -∇(f + (η/4) ‖∇f‖²) dt + √η Σ^(1/2) dW: error ≤ C η²",
        "equality",
        _WEAK,
        "",
        lambda: settings.weak_cases(2),
        order=2,
    ),
    Formula(
        "SDE of heavy ball, order 1",
        LI,
        "dX = V dt, dV = -(μ V + ∇f) dt + η^(1/4) Σ^(1/2) dW: error ≤ C √η",
        "equality",
        _MOMENTUM,
        "",
        lambda: settings.momentum_cases(False, 1),
        order=1,
    ),
    Formula(
        "SDE of heavy ball, order 2",
        LI,
        "dX = [(1 - hμ/2) V - (h/2) ∇f] dt, dV = -[μ(1 + hμ/2) V - (h/2) ∇²f V + (1 + hμ/2) ∇f] dt "
        "+ √h Σ^(1/2) dW, h = √η: error ≤ C h²",
        "equality",
        _MOMENTUM,
        "",
        lambda: settings.momentum_cases(False, 2),
        order=2,
    ),
    Formula(
        "SDE of Nesterov's method, order 1",
        LI,
        "that of heavy ball: error ≤ C √η",
        "equality",
        _MOMENTUM,
        "",
        lambda: settings.momentum_cases(True, 1),
        order=1,
    ),
    Formula(
        "SDE of Nesterov's method, order 2",
        LI,
        "that of heavy ball with +(h/2) ∇²f V: error ≤ C h²",
        "equality",
        _MOMENTUM,
        "",
        lambda: settings.momentum_cases(True, 2),
        order=2,
    ),
    Formula(
        "loss bound of SGD",
        f"{COMPAGNONI}, poster, equation 3",
        "E S_t ≤ S₀ e^(-2μt) + (1 - e^(-2μt)) η L d σ² / (4 μ B)",
        "upper bound",
        "for the SDE; the algorithm's level lies above by 1/(1 - ηλ/2)",
        "",
        settings.bound_cases,
    ),
    Formula(
        "law of SGD under Student-t noise",
        "Gil-Pelaez 1951 with the characteristic function of Hurst 1995",
        "P(x_K ≤ x) = 1/2 + (1/π) ∫ Im(e^(iwu) Π φ_ν(η s qʲ u)) du/u, w = q^K x₀ - x up to sign",
        "equality",
        "quadratics, ν > 0, any K",
        "",
        settings.student_cases,
    ),
)
