"""What is published of SAM, USAM and DNSAM, against the algorithms' own laws.

The laws are those of quadratics with noise of covariance Σ, σ² I unless it is given.
"""

from benchmarks.verdicts import _sharpness_cases as settings
from benchmarks.verdicts._verdict import Formula

PAPER = "Compagnoni et al. 2023, arXiv 2301.08203"
SHARPNESS = "Luo et al. 2025, arXiv 2509.18001"
SDE_ONLY = "for the SDE at every η; for the algorithm to leading order in η"
TO_FIRST_ORDER = "to first order in ρ, at every η; exact on quadratics"

FORMULAS = (
    Formula(
        "mean of USAM",
        PAPER,
        "E X_t = e^(-λ(1 + ρλ)t) x₀",
        "equality",
        SDE_ONLY,
        "(1 - η λ (1 + ρλ))ᵏ x₀",
        lambda: settings.usam_moments("mean"),
        order=1,
    ),
    Formula(
        "variance of USAM",
        PAPER,
        "Var X_t = (η σ² (1 + ρλ)/(2λ)) (1 - e^(-2λ(1 + ρλ)t))",
        "equality",
        SDE_ONLY,
        "η² σ² κ² (1 - qᵏ)/(1 - q), κ = 1 + ρλ, q = (1 - ηλκ)²",
        lambda: settings.usam_moments("covariance"),
        order=1,
    ),
    Formula(
        "stationary covariance of USAM",
        PAPER,
        "(η/2) H⁻¹ (I + ρH) Σ",
        "equality",
        f"{SDE_ONLY}; H and Σ commute, also at saddles that capture. Where they do not, entries "
        "off the diagonal are wrong at every η",
        "A C + C A - η A C A = η K Σ K, K = I + ρH, A = K H; η σ² κ/(λ (2 - ηλκ)) in one direction",
        settings.usam_levels,
        order=1,
    ),
    Formula(
        "stationary loss of USAM",
        PAPER,
        "E f = (η σ²/4) (d + ρ tr H)",
        "equality",
        SDE_ONLY,
        "(η σ²/2) Σ κᵢ/(2 - η λᵢ κᵢ), κᵢ = 1 + ρλᵢ",
        settings.usam_losses,
        order=1,
    ),
    Formula(
        "ρ from which on a saddle captures USAM",
        PAPER,
        "1/λ, −λ the negative eigenvalue nearest to 0",
        "equality",
        "for the SDE and the algorithm",
        "",
        settings.capture_rhos,
    ),
    Formula(
        "drift of USAM",
        PAPER,
        "-∇(f + (ρ/2) (‖∇f‖² + tr Σ)), Σ = Cov g_c",
        "equality",
        TO_FIRST_ORDER,
        "",
        lambda: settings.usam_drifts(1),
        order=2,
    ),
    Formula(
        "drift of USAM by batch size",
        SHARPNESS,
        "-∇(f + (ρ/2) ‖∇f‖² + (ρ/(2m)) tr V), without tr V if perturbed by the full gradient",
        "equality",
        TO_FIRST_ORDER,
        "",
        lambda: settings.usam_drifts(2) + settings.usam_drifts(1, full=True),
        order=2,
    ),
    Formula(
        "drift of SAM",
        PAPER,
        "-∇(f + ρ E‖g_c‖)",
        "equality",
        TO_FIRST_ORDER,
        "",
        settings.sam_drifts,
        order=2,
    ),
    Formula(
        "drift of DNSAM",
        PAPER,
        "-∇(f + ρ ‖∇f‖)",
        "equality",
        f"{TO_FIRST_ORDER}; noise that does not depend on x",
        "-(∇f + (ρ/(2‖∇f‖)) ∇E‖g_c‖²), for any noise",
        settings.dnsam_drifts,
        order=2,
    ),
    Formula(
        "covariance of a step of USAM and SAM",
        PAPER,
        "Σ + ρ (C + Cᵀ), C = Cov(g_c, H_c p_c), p_c = g_c (USAM), g_c/‖g_c‖ (SAM)",
        "equality",
        "to first order in ρ; near critical points ρλ ≪ σ, at saddles that capture it is negative",
        "Cov(g_c + ρ H_c p_c): USAM K Σ K; SAM adds ρ² H Cov(p_c) H",
        settings.first_order_covariances,
        order=2,
    ),
    Formula(
        "stationary variance of SAM under that covariance",
        f"follows from the SDE of {PAPER}",
        "η σ² (1 + 2ρ'λ)/(2λ (1 + ρ'λ)), ρ' = ρ K_d/σ",
        "equality",
        "ρλ ≪ σ: at larger ρ it is too low at every η, and negative at saddles that capture",
        "η (σ² (1 + 2ρ'λ) + ρ² λ²/d)/(2a - η a²), a = λ (1 + ρ'λ)",
        settings.sam_levels,
        corrected_order=1,
    ),
    Formula(
        "gradient norm below which a saddle captures SAM",
        PAPER,
        "‖∇f‖ = ρ λ, −λ the negative eigenvalue nearest to 0",
        "lower bound",
        "without noise; attained on the axis of −λ. With noise N(0, σ² I) it captures for "
        "ρ > σ/(K_d λ) only",
        "",
        settings.capture_radii,
    ),
)
