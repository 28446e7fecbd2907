"""What is published of DSGD, DCSGD and DSignSGD, against the algorithms' own laws.

N agents of noise σᵢ² I, bars and σ̄² means over them, σ_{H,p} = (mean 1/σᵢᵖ)^(-1/p).
"""

from benchmarks.verdicts import _compressed_cases as compressed
from benchmarks.verdicts import _dsign_cases as signs
from benchmarks.verdicts._verdict import Formula

PAPER = "Compagnoni et al. 2025, arXiv 2502.17009"
SDE_ONLY = "for the SDE at every η; for the algorithm to leading order in η"

FOR_ALGORITHM = f"{PAPER}; for the SDE, read here for the algorithm"
EXCEEDED = "stated for the SDE; the algorithm exceeds it where the SDE attains it"
LOSS = "E S_t ≤ S₀ e^(-2μt) + (1 - e^(-2μt)) η L d σ̄²/(4μN)"
COMPRESSED_LOSS = (
    "E S_t ≤ S₀ e^(-rt) + (1 - e^(-rt)) η L d (σ̄² + mean σᵢ² ωᵢ)/(2Nr), r = 2μ - η L² ω̄/N"
)
GRADIENT = "E ‖∇f(X_τ)‖² ≤ (S₀ + (η L d σ̄²/(2N)) φ₂)/φ₁, φ₁ = ∫ψ ds, φ₂ = ∫ψ² ds"
COMPRESSED_GRADIENT = (
    "E ‖∇f(X_τ)‖² ≤ (S₀ + (η L d (σ̄² + mean σᵢ² ωᵢ)/(2N)) φ₂)/(φ₁ - (η L ω̄/(2N)) φ₂)"
)
PHASE_3 = (
    "E S_t ≤ S₀ e^(-2μΔt) + (η L_τ/(2N)) (1 - e^(-2μΔt))/(2μΔ), "
    "Δ = l/σ_{H,1} + η μ l²/(2N σ_{H,2}²)"
)
SIGN_GRADIENT = "E ‖∇f(X_τ)‖² ≤ (σ_{H,1}/l) (S₀ + (η L_τ/(2N)) φ₂)/φ₁"

FORMULAS = (
    Formula(
        "loss under the SDE of DSGD",
        PAPER,
        LOSS,
        "upper bound",
        "attained at H = μ I",
        "",
        lambda: compressed.sde_loss_bounds(0),
    ),
    Formula(
        "loss of DSGD",
        FOR_ALGORITHM,
        LOSS,
        "upper bound",
        EXCEEDED,
        "μ (1 - η L/2) for μ, and (1 - 2ημ)ᵏ for e^(-2μt)",
        lambda: compressed.loss_bounds(0),
    ),
    Formula(
        "loss under the SDE of DCSGD",
        PAPER,
        COMPRESSED_LOSS,
        "upper bound",
        "η L² ω̄ < 2μN; attained at H = μ I; with μ L for L² in r it holds too, and is closer",
        "",
        lambda: compressed.sde_loss_bounds(3),
    ),
    Formula(
        "loss of DCSGD",
        FOR_ALGORITHM,
        COMPRESSED_LOSS,
        "upper bound",
        EXCEEDED,
        "r = 2μ (1 - η L (1 + ω̄/N)/2), and (1 - η r)ᵏ for e^(-rt)",
        lambda: compressed.loss_bounds(3),
    ),
    Formula(
        "gradient under the SDE of DSGD",
        PAPER,
        GRADIENT,
        "upper bound",
        "f not convex",
        "",
        lambda: compressed.sde_gradient_bounds(0),
    ),
    Formula(
        "gradient of DSGD",
        FOR_ALGORITHM,
        GRADIENT,
        "upper bound",
        EXCEEDED,
        "the same over 1 - η L/2, ψ ≤ 1, φ₁ and φ₂ sums",
        lambda: compressed.gradient_bounds(0),
    ),
    Formula(
        "gradient under the SDE of DCSGD",
        PAPER,
        COMPRESSED_GRADIENT,
        "upper bound",
        "f not convex",
        "",
        lambda: compressed.sde_gradient_bounds(3),
    ),
    Formula(
        "gradient of DCSGD",
        FOR_ALGORITHM,
        COMPRESSED_GRADIENT,
        "upper bound",
        EXCEEDED,
        "(S₀ + …)/(φ₁ (1 - η L (1 + ω̄/N)/2)), ψ ≤ 1",
        lambda: compressed.gradient_bounds(3),
    ),
    Formula(
        "mean of DSGD and DCSGD",
        PAPER,
        "E X_t = e^(-Ht) x₀",
        "equality",
        SDE_ONLY,
        "(I - η H)ᵏ x₀",
        compressed.means,
        order=1,
    ),
    Formula(
        "second moment of DSGD and DCSGD",
        PAPER,
        "E X² = e^(-ct) x₀² + (η (1 + ω) σ̄²/(Nc)) (1 - e^(-ct)), c = 2λ - η ω λ²/N",
        "equality",
        f"{SDE_ONLY}; random sparsification",
        "(1 - η c)ᵏ for e^(-ct), c = 2λ - η λ² (1 + ω/N)",
        compressed.second_moments,
        order=1,
    ),
    Formula(
        "stationary covariance of DSGD",
        PAPER,
        "(η/(2N)) Σ̄ H⁻¹",
        "equality",
        f"{SDE_ONLY}; H and Σ commute",
        "(η/N) σ̄²/(2λ - η λ²)",
        lambda: compressed.levels(0),
        order=1,
    ),
    Formula(
        "stationary covariance of DCSGD",
        PAPER,
        "(η/(2N)) (1 + ω) Σ H⁻¹ (I - (η ω/(2N)) H)⁻¹",
        "equality",
        f"{SDE_ONLY}; random sparsification, H diagonal: a full H couples what one message sends",
        "(η/N) (1 + ω) σ̄²/(2λ - η λ² (1 + ω/N))",
        lambda: compressed.levels(3),
        order=1,
    ),
    Formula(
        "largest learning rate of DCSGD",
        FOR_ALGORITHM,
        "η < 2N/(ω λ)",
        "equality",
        "for the SDE; the algorithm allows less",
        "η < 2/(λ (1 + ω/N))",
        compressed.largest_steps,
    ),
    Formula(
        "loss of DSignSGD in phase 2",
        PAPER,
        "E S_t ≤ S₀ e^(-2μΔt) + (η/(2N)) (L_τ - μ d q⁻²)/(2μΔ) (1 - e^(-2μΔt)), "
        "Δ = m/(√2 σ_{H,1}) + η μ m²/(4N σ_{H,2}²)",
        "upper bound",
        "Gaussian noise, every agent's ratio of ∇f to √2 σᵢ in [1, 3/2]",
        "",
        signs.phase_2,
    ),
    Formula(
        "loss under the linearised SDE of DSignSGD",
        PAPER,
        PHASE_3,
        "upper bound",
        "attained at H = μ I",
        "",
        signs.sde_phase_3,
    ),
    Formula(
        "loss of DSignSGD in phase 3",
        FOR_ALGORITHM,
        PHASE_3,
        "upper bound",
        "stated for the linearised SDE; the algorithm is slower, and its level higher",
        "Δ = mean E sign(s + Z)/(s σᵢ) - (η μ l²/2) (1 - 1/N)/σ_{H,1}², s the largest ratio of ∇f "
        "to σᵢ, and (1 - 2ημΔ)ᵏ",
        signs.phase_3,
    ),
    Formula(
        "loss level of DSignSGD",
        PAPER,
        "E f = η L_τ σ_{H,1}/(4μ N l), on isotropic quadratics",
        "equality",
        "η λ ≪ σ, every ν > 0",
        "V₀ (1 + V₀ κ b + η a/2 - V₀ q) λ/2 a coordinate, V₀ = η/(2Na), a = lλ/σ_{H,1}, "
        "b = λ² mean σᵢ⁻³/mean σᵢ⁻¹, q = l² λ²/σ_{H,2}²",
        signs.loss_levels,
        order=1,
        corrected_order=2,
    ),
    Formula(
        "gradient under the linearised SDE of DSignSGD",
        PAPER,
        SIGN_GRADIENT,
        "upper bound",
        "f not convex, ∇f below σ",
        "",
        signs.sde_gradient_bounds,
    ),
    Formula(
        "gradient of DSignSGD",
        FOR_ALGORITHM,
        SIGN_GRADIENT,
        "upper bound",
        "stated for the linearised SDE; the algorithm is slower where ∇f is not small against σ",
        "(S₀ + …)/(φ₁ (mean E sign(s + Z)/(s σᵢ) - (η L/2) (1 - 1/N) l²/σ_{H,1}²)), s the largest "
        "ratio of ∇f to σᵢ",
        signs.gradient_bounds,
    ),
    Formula(
        "mean of DSignSGD on a quadratic",
        PAPER,
        "E X_t = e^(-(l/σ_{H,1}) H t) x₀",
        "equality",
        "η λ ≪ σ and λ x₀ ≪ σ (x₀ = 2 stationary deviations here)",
        "",
        lambda: signs.moments("x"),
        order=1,
    ),
    Formula(
        "second moment of DSignSGD on a quadratic",
        PAPER,
        "E X² = e^(-2Δt) x₀² + (η/(2NΔ)) (1 - e^(-2Δt)), Δ = lλ/σ_{H,1} + η l² λ²/(2N σ_{H,2}²)",
        "equality",
        "η λ ≪ σ and λ x₀ ≪ σ (x₀ = 2 stationary deviations here)",
        "",
        lambda: signs.moments("x²"),
        order=1,
    ),
    Formula(
        "stationary covariance of DSignSGD",
        PAPER,
        "(η/(2N)) [l H/σ_{H,1} + (η l²/(2N)) H²/σ_{H,2}²]⁻¹",
        "equality",
        "η λ ≪ σ, every ν > 0; its second term is no gain over the first alone",
        "V₀ (1 + V₀ κ b + η a/2 - V₀ q), V₀ = η/(2Na), a = lλ/σ_{H,1}, "
        "b = λ² mean σᵢ⁻³/mean σᵢ⁻¹, q = l² λ²/σ_{H,2}²",
        signs.levels,
        order=1,
        corrected_order=2,
    ),
)
