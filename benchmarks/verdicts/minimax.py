"""What is published of SGDA, SEG and SHGD (arXiv 2402.12508), against the algorithms' own moments.

One pair is f = a x²/2 + λ x y - a y²/2 with noise of variance σ² in both gradients;
u = E(x² + y²)/2 starts at b.
"""

from benchmarks.verdicts import _minimax_cases as settings
from benchmarks.verdicts._verdict import Formula
from jaxsde.theory.minimax import seg, sgda, shgd

PAPER = "Compagnoni et al. 2024, arXiv 2402.12508"
FOR_ALGORITHM = f"{PAPER}; for the SDE, read here for the algorithm"
SDE_ONLY = "for the SDE at every η; for the algorithm to leading order in η"
CHAIN = "u = b qᵏ + η c (1 - qᵏ)/(1 - q), q = (1 - η r)² + η² ω²"

FORMULAS = (
    Formula(
        "half square of SGDA on a bilinear game",
        PAPER,
        "u(t) = b + η σ² t",
        "equality",
        "for the SDE; for the algorithm while η λ² t ≪ 1: it grows as e^(η λ² t)",
        "u = b qᵏ + σ² (qᵏ - 1)/λ², q = 1 + η² λ², t = k η",
        lambda: (
            settings.curve(sgda(), 0, 2, 2.0)
            + settings.curve(sgda(), 0, 2, 20.0, etas=(0.04,), inside=False)
        ),
        order=1,
    ),
    Formula(
        "half square of SGDA on a quadratic game",
        PAPER,
        "u(t) = b e^(-2at) + (η σ²/(2a)) (1 - e^(-2at))",
        "equality",
        SDE_ONLY,
        f"{CHAIN}; r = a, ω = λ, c = η σ²",
        lambda: settings.curve(sgda(), 2, 1, 1.0) + settings.curve(sgda(), 1, 2, 1.0),
        order=1,
    ),
    Formula(
        "half square of SEG",
        PAPER,
        "u(t) = b e^(-2rt) + (c/(2r)) (1 - e^(-2rt)), r = a + ρ (λ² - a²), "
        "c = η σ² ((1 - ρ a)² + ρ² λ²)",
        "equality",
        f"{SDE_ONLY}; not for ρ of the order of η: at ρ < η/2 the SDE converges on a bilinear "
        "game, and the algorithm diverges",
        f"{CHAIN}; ω = λ (1 - 2 ρ a), r and c as published",
        lambda: (
            settings.curve(seg(0.3), 2, 1, 1.0)
            + settings.curve(seg(1.0), 0, 2, 0.4)
            + settings.curve(seg(0.01), 0, 2, 20.0, etas=(0.04,), inside=False)
        ),
        order=1,
    ),
    Formula(
        "half square of SHGD",
        PAPER,
        "u(t) = b e^(-2rt) + (η σ²/2) (1 - e^(-2rt)), r = a² + λ²",
        "equality",
        f"{SDE_ONLY}; one batch in both factors of JᵀF",
        f"{CHAIN}; ω = 0, c = η σ² r",
        lambda: settings.curve(shgd(), 0, 2, 0.2) + settings.curve(shgd(), 1, 1, 0.4),
        order=1,
    ),
    Formula(
        "stationary half square of SGDA",
        PAPER,
        "u∞ = η σ²/(2a)",
        "equality",
        "for the SDE, a > 0; for the algorithm to leading order in η",
        "η σ²/(2a - η (a² + λ²))",
        lambda: settings.levels(sgda(), 2, 1) + settings.levels(sgda(), 2, 3),
        order=1,
    ),
    Formula(
        "stationary half square of SEG",
        PAPER,
        "u∞ = η σ² ((1 - ρ a)² + ρ² λ²)/(2 (a + ρ (λ² - a²)))",
        "equality",
        f"{SDE_ONLY}; one batch for both evaluations, with two the noise is another",
        "c/(2r - η (r² + ω²)), ω = λ (1 - 2 ρ a); c = η σ² (1 + ρ² (a² + λ²)) with two batches",
        lambda: (
            settings.levels(seg(0.25), 3, 1)
            + settings.levels(seg(-0.875), 3, 1)
            + settings.levels(seg(1.0), 0, 2)
            + settings.levels(seg(0.25, True), 3, 1, taken_for=seg(0.25))
            + settings.levels(seg(1.0, True), -1, 2, taken_for=seg(1.0))
        ),
        order=1,
    ),
    Formula(
        "stationary half square of SHGD",
        PAPER,
        "u∞ = η σ²/2, whatever the game",
        "equality",
        f"{SDE_ONLY}; one batch in both factors of JᵀF, with two independent ones half of it",
        "η σ²/(2 - η (a² + λ²)), half of it with two batches",
        lambda: (
            settings.levels(shgd(), 0, 2)
            + settings.levels(shgd(), 2, 1)
            + settings.levels(shgd(2), 0, 2, taken_for=shgd())
        ),
        order=1,
    ),
    Formula(
        "stationary covariance on a quadratic game",
        PAPER,
        "B V + V Bᵀ = η S, SEG: B = J - ρ J², S = (I - ρ J) Σ (I - ρ J)ᵀ, "
        "SHGD: B = Jᵀ J, S = Jᵀ Σ J; half its trace",
        "equality",
        SDE_ONLY,
        "B V + V Bᵀ - η B V Bᵀ = η S",
        settings.game_levels,
        order=1,
    ),
    Formula(
        "rate of decay",
        PAPER,
        "E z decays as e^(-rt): r = a (SGDA), a + ρ (λ² - a²) (SEG), a² + λ² (SHGD)",
        "equality",
        SDE_ONLY,
        "-ln((1 - η r)² + η² ω²)/(2η), ω = λ (SGDA), λ (1 - 2 ρ a) (SEG), 0 (SHGD)",
        settings.rates,
        order=1,
    ),
    Formula(
        "least ρ at which SEG converges on a quadratic game",
        PAPER,
        "ρ (λ² - a²) > -a",
        "equality",
        SDE_ONLY,
        "the roots of η N² ρ² - 2 (D + η a N) ρ + η N - 2a, N = a² + λ², D = λ² - a²",
        settings.least_rho,
        order=1,
    ),
    Formula(
        "SEG on a bilinear game converges for every ρ > 0",
        FOR_ALGORITHM,
        "0 < ρ < ∞",
        "equality",
        "for the SDE; the algorithm needs 2ρ > η (1 + ρ² λ²)",
        "(1 ∓ √(1 - η² λ²))/(η λ²): from about η/2 to about 2/(η λ²)",
        settings.bilinear_rho,
    ),
    Formula(
        "SGDA (a > 0) and SHGD converge at every learning rate",
        FOR_ALGORITHM,
        "η < ∞",
        "equality",
        "for the SDEs; the algorithms have a largest η",
        "η < 2a/(a² + λ²) (SGDA), η < 2/(a² + λ²) (SHGD)",
        settings.largest_steps,
    ),
    Formula(
        "ρ of the least stationary variance of SEG",
        PAPER,
        "ρ = 1/(a + λ)",
        "equality",
        "one batch for both evaluations, for the SDE and the algorithm alike; not for two batches",
        "with two batches ρ = (-a N + √(a² N² + N D²))/(N D), N = a² + λ², D = λ² - a² + η a N",
        settings.quietest_rho,
    ),
    Formula(
        "ρ at which SEG decays as fast as SHGD",
        PAPER,
        "ρ = (a² + λ² - a)/(λ² - a²)",
        "equality",
        SDE_ONLY,
        "the root of η N² ρ² - 2 (D + η a N) ρ + 2N - 2a + η N - η N², N = a² + λ², D = λ² - a²",
        settings.matching_rho,
        order=1,
    ),
    Formula(
        "SEG with noise in the coupling",
        PAPER,
        "u(t) = b exp(-t (2ρλ² - η σ² (1 + ρ² (2λ² + σ²))))",
        "equality",
        f"{SDE_ONLY}; two batches, a bilinear pair; with one batch the drift has λ² + σ² for λ²",
        "u = b (1 - η κ)ᵏ, κ = 2ρλ² - η (ρ² λ⁴ + λ² + σ² (1 + ρ² (2λ² + σ²)))",
        lambda: (
            settings.multiplied(seg(1.0, True))
            + settings.multiplied(seg(2.0, True))
            + settings.multiplied(seg(1.0), taken_for=seg(1.0, True))
        ),
        order=1,
    ),
    Formula(
        "SHGD with noise in the coupling",
        PAPER,
        "u(t) = b exp(-t (2λ² - η σ² (2λ² + σ²)))",
        "equality",
        f"{SDE_ONLY}; two batches, a bilinear pair",
        "u = b (1 - η κ)ᵏ, κ = 2λ² - η (λ⁴ + σ² (2λ² + σ²))",
        lambda: settings.multiplied(shgd(2)) + settings.multiplied(shgd(), taken_for=shgd(2)),
        order=1,
    ),
    Formula(
        "SGDA with noise in the coupling",
        PAPER,
        "u(t) = b e^(η σ² t)",
        "equality",
        "for the SDE; the algorithm grows by the factor 1 + η² (λ² + σ²) a step",
        "u = b (1 + η² (λ² + σ²))ᵏ",
        lambda: settings.multiplied(sgda()),
        order=1,
    ),
    Formula(
        "ρ between which SEG converges with noise in the coupling",
        FOR_ALGORITHM,
        "(λ² ∓ √(λ⁴ - η² σ⁴ m))/(η σ² m), m = 2λ² + σ²",
        "equality",
        "for the SDE, two batches; for the algorithm at no η, the ratio stays as η falls",
        "(λ² ∓ √(λ⁴ - P Q))/Q, P = η (λ² + σ²), Q = η (λ⁴ + σ² m)",
        settings.multiplied_rho,
    ),
    Formula(
        "half square under η_k ∝ (1 + t)^(-1/2)",
        PAPER,
        "u(t) = e^(-2κs) (b e^(2κ) + 2c (Ei(2κs) - Ei(2κ))), s = √(1 + t), κ = 2r",
        "equality",
        f"{SDE_ONLY}; bilinear games",
        "u⁺ = ((1 - ηψr)² + (ηψω)²) u + η ψ² c, ψ = (1 + t)^(-1/2)",
        lambda: settings.scheduled(0.5),
        order=1,
    ),
    Formula(
        "half square under η_k ∝ 1/(1 + t)",
        PAPER,
        "u(t) = (1 + t)^(-κ) (b + c ((1 + t)^(κ-1) - 1)/(κ - 1)), κ = 2r",
        "equality",
        f"{SDE_ONLY}; bilinear games",
        "u⁺ = ((1 - ηψr)² + (ηψω)²) u + η ψ² c, ψ = 1/(1 + t)",
        lambda: settings.scheduled(1.0),
        order=1,
    ),
    Formula(
        "tail under η_k ∝ (1 + t)^(-1/2)",
        PAPER,
        "u ~ (c/κ) (1 + t)^(-1/2)",
        "equality",
        "as t → ∞, for the SDE and the algorithm",
        "",
        lambda: settings.tails(0.5, [(seg(1.0), 2), (shgd(), 1)]),
    ),
    Formula(
        "tail under η_k ∝ 1/(1 + t)",
        PAPER,
        "u ~ (c/(κ - 1))/(1 + t), κ > 1",
        "equality",
        "as t → ∞, for the SDE and the algorithm",
        "",
        lambda: settings.tails(1.0, [(seg(1.0), 2), (shgd(), 1)]),
    ),
    Formula(
        "Hamiltonian under the SDE of SHGD",
        PAPER,
        "E H(t) ≤ H₀ e^(-2μt) + (η L/(4μ)) (1 - e^(-2μt)), H = ‖F‖²/2, ‖∇H‖² ≥ 2μH, L ≥ tr(S ∇²H)",
        "upper bound",
        "attained on bilinear games of one λ",
        "",
        settings.sde_hamiltonian_bounds,
    ),
    Formula(
        "Hamiltonian under SHGD",
        FOR_ALGORITHM,
        "E H(t) ≤ H₀ e^(-2μt) + (η L/(4μ)) (1 - e^(-2μt))",
        "upper bound",
        "stated for the SDE; the algorithm exceeds it where the SDE attains it",
        "μ (1 - η ‖∇²H‖/2) for μ, and (1 - 2ημ)ᵏ for e^(-2μt)",
        settings.hamiltonian_bounds,
    ),
)
