"""Pairs of a minimax game: the table, the pairs of a game, and the choices of ρ."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import BilinearGame, Players, QuadraticGame
from jaxsde.theory import minimax

ETA = 0.0625
SIGMA = 0.7
LAWS = [theory.discrete, theory.em(0.03125), theory.sde]
STEPS = dict(zip(LAWS, [ETA, 0.03125, 0.0], strict=True))
PAIRS = [(1.5, 1.0), (0.0, 2.0), (-1.0, 2.0), (2.0, 0.0), (3.0, -1.0), (1.0, 1.0)]
TABLE = {  # r, c/(η σ²), ω, by hand
    minimax.sgda(): lambda a, lam: (a, 1, lam),
    minimax.seg(0.5): lambda a, lam: (
        a + 0.5 * (lam**2 - a**2), (1 - 0.5 * a) ** 2 + 0.25 * lam**2, lam * (1 - a)
    ),
    minimax.seg(-0.25, True): lambda a, lam: (
        a - 0.25 * (lam**2 - a**2), 1 + 0.0625 * (a**2 + lam**2), lam * (1 + 0.5 * a)
    ),
    minimax.shgd(): lambda a, lam: (a**2 + lam**2, a**2 + lam**2, 0),
    minimax.shgd(2): lambda a, lam: (a**2 + lam**2, (a**2 + lam**2) / 2, 0),
}  # fmt: skip
METHODS = list(TABLE)


def constants(a, lam):
    return {"curvature": a, "coupling": lam}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("a", "lam"), PAIRS)
def test_the_table_by_hand(a, lam, method):
    """u' = -2 r u + c solved, and u⁺ = ((1 - h r)² + h² ω²) u + h c looped."""
    r, c, omega = TABLE[method](a, lam)
    pair = constants(a, lam)
    assert minimax.pair_rate(ETA, **pair, method=method) == pytest.approx(r, abs=1e-15)
    assert minimax.pair_noise(**pair, method=method) == pytest.approx(c, rel=1e-14)
    assert minimax.pair_frequency(ETA, **pair, method=method) == pytest.approx(abs(omega))
    assert minimax.pair_is_stable(ETA, **pair, method=method) == (r > 0)
    c = c * ETA * SIGMA**2
    t = np.array([0.0, 0.5, 2.0])
    b = 0.8
    expected = b + c * t if r == 0 else b * np.exp(-2 * r * t) - c * np.expm1(-2 * r * t) / (2 * r)
    found = minimax.pair_half_square(b, t, ETA, **pair, sigma=SIGMA, method=method)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for law in LAWS[:2]:
        h, u = STEPS[law], [b]
        q = (1 - h * r) ** 2 + h**2 * omega**2
        for _ in range(round(2 / h)):
            u.append(q * u[-1] + h * c)
        found = minimax.pair_half_square(b, t, ETA, law, **pair, sigma=SIGMA, method=method)
        np.testing.assert_allclose(found, np.array(u)[[0, round(0.5 / h), -1]], rtol=1e-12)
        assert minimax.pair_is_stable(ETA, law, **pair, method=method) == (q < 1)
        rate = minimax.pair_rate(ETA, law, **pair, method=method)
        assert rate == pytest.approx(-np.log(q) / (2 * h), abs=1e-12)
        turn = minimax.pair_frequency(ETA, law, **pair, method=method)
        assert turn == pytest.approx(abs(np.arctan2(h * omega, 1 - h * r)) / h)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("law", LAWS)
def test_the_table_is_the_matrix_form(law, method):
    """Two pairs by `moments`: means turn and decay, the covariance is isotropic, u the same."""
    a, lam = np.array([1.5, 0.5]), np.array([1.0, -2.0])
    game, t = QuadraticGame(np.diag(lam), a), np.array([0.0, 0.5, 2.0])
    x, y = np.array([1.0, -0.5]), np.array([0.25, 2.0])
    found = minimax.moments(game, np.full(4, SIGMA**2), ETA, Players(x, y), t, law, method=method)
    pair = constants(a, lam)
    variance = minimax.pair_half_square(0, t, ETA, law, **pair, sigma=SIGMA, method=method)
    for i, time in enumerate(t):
        expected = np.diag(np.tile(variance[i], 2))
        np.testing.assert_allclose(found.covariance[i], expected, atol=1e-13)
        r = minimax.pair_rate(ETA, law, **pair, method=method)
        omega = minimax.pair_frequency(ETA, law, **pair, method=method)
        length = np.exp(-r * time) * np.hypot(x, y)
        np.testing.assert_allclose(np.hypot(found.mean[i, :2], found.mean[i, 2:]), length)
        cosine = x * found.mean[i, :2] + y * found.mean[i, 2:]
        np.testing.assert_allclose(cosine, length * np.hypot(x, y) * np.cos(omega * time))
    u = minimax.pair_half_square((x**2 + y**2) / 2, t, ETA, law, **pair, sigma=SIGMA, method=method)
    np.testing.assert_allclose(minimax.mean_half_square(found), u.sum(-1), rtol=1e-12)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_levels_are_the_late_half_squares(law, method):
    a, lam = np.array([1.5, 1.0]), np.array([[1.0], [1.25]])
    pair = {"curvature": a, "coupling": lam, "sigma": SIGMA, "method": method}
    level = minimax.pair_level(ETA, law, **pair)
    assert level.shape == (2, 2)
    late = minimax.pair_half_square(5.0, [400.0], ETA, law, **pair)
    np.testing.assert_allclose(late, level[None], rtol=1e-12)
    if law == theory.sde:
        r, c, _ = TABLE[method](a, lam)
        np.testing.assert_allclose(level - ETA * SIGMA**2 * c / (2 * r), 0, atol=1e-16)
        B = np.sqrt(r**2 + TABLE[method](a, lam)[2] ** 2)
        true = minimax.pair_level(ETA, theory.discrete, **pair)
        np.testing.assert_allclose(level / true, 1 - ETA * B**2 / (2 * r), rtol=1e-12)


def test_sgda_diverges_exponentially_and_its_sde_linearly():
    pair = constants(0.0, 2.0) | {"sigma": SIGMA, "method": minimax.sgda()}
    t = np.array([0.0, 10.0, 20.0])
    linear = minimax.pair_half_square(0.5, t, ETA, **pair)
    np.testing.assert_allclose(linear, 0.5 + ETA * SIGMA**2 * t, rtol=1e-14)
    found = minimax.pair_half_square(0.5, t, ETA, theory.discrete, **pair)
    growth = (1 + 4 * ETA**2) ** (t / ETA)
    expected = growth * 0.5 + ETA**2 * SIGMA**2 * (growth - 1) / (4 * ETA**2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    rate = minimax.pair_rate(ETA, theory.discrete, **constants(0.0, 2.0), method=minimax.sgda())
    assert -2 * rate == pytest.approx(ETA * 4, rel=0.13)


def test_a_hundred_thousand_steps_cost_nothing():
    pair = constants(0.0, np.ones(3)) | {"sigma": 1.0, "method": minimax.seg(0.5)}
    t = 1e-3 * np.arange(100_001)
    found = minimax.pair_half_square(np.ones(3), t, 1e-3, theory.discrete, **pair)
    assert found.shape == (100_001, 3)
    u = minimax.pair_half_square(np.ones(3), t, 1e-3, **pair)
    np.testing.assert_allclose(found, u, rtol=5e-3)


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def test_pairs_of_games():
    a, lam, Q = np.array([3.0, -1.0]), np.array([1.0, 2.0]), rotation(0.7)
    x, y = Q @ [1.0, 2.0], Q @ [3.0, -1.0]
    game = QuadraticGame(Q @ np.diag(lam) @ Q.T, Q @ np.diag(a) @ Q.T)
    found = minimax.pairs(game, Players(x, y))  # in float32, unless x64 is on
    np.testing.assert_allclose(found.curvature, [-1, 3], rtol=1e-6)
    np.testing.assert_allclose(found.coupling, [2, 1], rtol=1e-6)
    np.testing.assert_allclose(found.half_square, [2.5, 5], rtol=1e-6)
    same = minimax.pairs(QuadraticGame(lam, a))
    np.testing.assert_allclose(same.curvature, [-1, 3])
    np.testing.assert_array_equal(same.half_square, 0)


def test_pairs_of_bilinear_games_are_singular_values():
    B = np.array([[1.0, 0.5, 0.0], [-2.0, 0.25, 1.0], [0.0, 0.0, 0.0]])
    z = np.arange(1.0, 7.0)
    found = minimax.pairs(BilinearGame(B), z)
    U, lam, Vt = np.linalg.svd(B)
    np.testing.assert_allclose(found.coupling, lam[::-1], atol=1e-6)
    np.testing.assert_allclose(found.curvature, 0, atol=1e-6)
    b = ((U.T @ z[:3]) ** 2 + (Vt @ z[3:]) ** 2) / 2
    np.testing.assert_allclose(found.half_square, b[::-1], rtol=1e-5)
    law = minimax.moments(
        BilinearGame(B), np.full(6, SIGMA**2), ETA, z, [0.0, 2.0], method=minimax.shgd()
    )
    u = minimax.pair_half_square(
        found.half_square, [0.0, 2.0], ETA, curvature=0, coupling=found.coupling,
        sigma=SIGMA, method=minimax.shgd(),
    )  # fmt: skip
    np.testing.assert_allclose(minimax.mean_half_square(law), u.sum(-1), rtol=1e-6)


def test_equal_pairs_share_a_start_whichever_way_they_are_turned():
    z = np.array([1.0, 2.0, 3.0, 4.0])
    for game in (QuadraticGame([2.0, 2.0], 1.0), QuadraticGame([0.0, 0.0], 1.0)):
        assert np.sum(minimax.pairs(game, z).half_square) == pytest.approx(15, rel=1e-6)


@pytest.mark.parametrize(
    "game",
    [
        QuadraticGame([1.0, 2.0], 1.0, 2.0),
        QuadraticGame([1.0, 2.0], [[1.0, 0.5], [0.5, 1.0]]),
        QuadraticGame([0.0], 1.0, 1.5),
        BilinearGame([[1.0, 2.0]]),
    ],
)
def test_games_without_pairs(game):
    with pytest.raises(InputError, match="use moments"):
        minimax.pairs(game)


def best_rho(level, low, high):
    """The minimum of the level, first on a grid and then by search."""
    grid = np.linspace(low, high, 203)[1:-1]
    values = np.array([level(rho) for rho in grid])
    k = np.argmin(values)
    search = minimize_scalar(level, bounds=(grid[k - 1], grid[k + 1]), options={"xatol": 1e-10})
    return search.x


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("a", "lam"), [(3.0, 1.0), (-1.0, 2.0), (0.0, 2.0), (1.0, -1.0), (-3, 1)])
def test_least_variance_by_grid_search(a, lam, law, independent):
    pair = constants(a, lam)
    low, high = minimax.stable_rho(ETA, law, **pair)
    found = minimax.least_variance_rho(ETA, law, **pair, independent=independent)
    assert low < found < high

    def level(rho):
        method = minimax.seg(rho, independent)
        return float(minimax.pair_level(ETA, law, **pair, sigma=1, method=method))

    ends = max(low + 1e-6, found - 1), min(high - 1e-6, found + 1)
    assert found == pytest.approx(best_rho(level, *ends), abs=1e-6)


def test_least_variances_by_hand():
    for a, lam, published, corrected in [(3, 1, 0.25, -0.1155), (-1, 2, 1, 0.8911)]:
        pair = constants(a, lam)
        assert minimax.least_variance_rho(ETA, **pair) == pytest.approx(published)
        found = minimax.least_variance_rho(ETA, **pair, independent=True)
        assert found == pytest.approx(corrected, abs=5e-5)
        method = minimax.seg(published)
        assert minimax.pair_rate(ETA, **pair, method=method) == pytest.approx(lam)
        level = minimax.pair_level(ETA, **pair, sigma=SIGMA, method=method)
        assert level == pytest.approx(ETA * SIGMA**2 * lam / (a + lam) ** 2)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("a", "lam"), [(3.0, 1.0), (-1.0, 2.0), (0.0, 2.0), (1.0, 1.0), (2.0, 0)])
def test_stable_rho_is_where_stability_changes(a, lam, law):
    ends, pair = minimax.stable_rho(ETA, law, **constants(a, lam)), constants(a, lam)
    assert ends[0] < ends[1]
    for end, inwards in zip(ends, (1, -1), strict=True):
        if np.isinf(end):
            inside, outside = 1e6 * np.sign(end), None
        else:
            inside, outside = end + inwards * 1e-6, end - inwards * 1e-6
        assert minimax.pair_is_stable(ETA, law, **pair, method=minimax.seg(inside))
        if outside is not None:
            assert not minimax.pair_is_stable(ETA, law, **pair, method=minimax.seg(outside))


def test_stable_rho_of_bilinear_pairs():
    """2 ρ > η (1 + ρ² λ²) for the algorithm, any ρ > 0 for the SDE."""
    assert minimax.stable_rho(ETA, **constants(0.0, 2.0)) == (0, np.inf)
    low, high = minimax.stable_rho(ETA, theory.discrete, **constants(0.0, 2.0))
    root = np.sqrt(1 - ETA**2 * 4)
    assert low == pytest.approx((1 - root) / (ETA * 4), rel=1e-10)
    assert high == pytest.approx((1 + root) / (ETA * 4), rel=1e-10)
    assert low == pytest.approx(ETA / 2, rel=0.01)
    assert minimax.stable_rho(ETA, **constants(1.0, 1.0)) == (-np.inf, np.inf)
    assert minimax.stable_rho(ETA, **constants(3.0, 1.0)) == (-np.inf, 3 / 8)


@pytest.mark.parametrize("law", [theory.discrete, theory.em(0.002), theory.sde])
@pytest.mark.parametrize(("a", "lam"), [(3.0, 1.0), (-1.0, 2.0), (0.0, 2.0), (0.5, 1.0)])
def test_matching_rho_matches(a, lam, law):
    pair, eta, method = constants(a, lam), 0.004, minimax.shgd()
    rho = minimax.matching_rho(eta, law, **pair)
    rate = minimax.pair_rate(eta, law, **pair, method=minimax.seg(rho))
    assert rate == pytest.approx(minimax.pair_rate(eta, law, **pair, method=method), rel=1e-12)
    published = (a**2 + lam**2 - a) / (lam**2 - a**2)
    assert rho == pytest.approx(published, rel=1e-14 if law == theory.sde else 0.15)
    assert minimax.matching_rho(1e-6, **pair) == pytest.approx(published, rel=1e-14)


def test_published_values_of_rho():
    """The settings of the experiments: ρ^H = -0.875 and 2, ρ^V = 0.25, 1 and 1/3."""
    assert minimax.matching_rho(0.01, **constants(3, 1)) == pytest.approx(-0.875)
    assert minimax.matching_rho(0.001, **constants(-1, 2)) == pytest.approx(2)
    assert minimax.least_variance_rho(0.01, **constants(2, 1)) == pytest.approx(1 / 3)


def test_what_has_no_law_or_no_rho_is_refused():
    pair = constants(np.array([0.5, -0.5]), 1.0)
    with pytest.raises(InputError, match=r"here 2 r = -1 and step \* \|B\|² = 0"):
        minimax.pair_level(ETA, **pair, sigma=1, method=minimax.sgda())
    with pytest.raises(InputError, match=r"here 2 r = 0.2 and step \* \|B\|² = 0.25"):
        minimax.pair_level(
            ETA, theory.discrete, **constants(0.0, 2.0), sigma=1, method=minimax.seg(0.025)
        )
    with pytest.raises(InputError, match="no rho is stable"):
        minimax.stable_rho(ETA, **constants(-1.0, 1.0))
    with pytest.raises(InputError, match="no rho is stable"):
        minimax.stable_rho(1.5, theory.discrete, **constants(0.0, 1.0))
    with pytest.raises(InputError, match="no rho is stable"):
        minimax.least_variance_rho(1.5, theory.discrete, **constants(0.0, 1.0))
    with pytest.raises(InputError, match="no rho is best for a pair without coupling"):
        minimax.least_variance_rho(ETA, **constants(1.0, 0.0))
    with pytest.raises(InputError, match="no rho makes SEG as fast"):
        minimax.matching_rho(ETA, **constants(1.0, 1.0))
    with pytest.raises(InputError, match="no rho makes SEG as fast"):
        minimax.matching_rho(1.0, theory.discrete, **constants(0.0, 1.5))
    with pytest.raises(InputError, match="curvature must be one number"):
        minimax.stable_rho(ETA, curvature=np.ones(2), coupling=1.0)
    one = constants(1.0, 1.0) | {"method": minimax.sgda()}
    with pytest.raises(InputError, match="coupling must be finite"):
        minimax.pair_noise(curvature=1.0, coupling=np.inf, method=minimax.sgda())
    with pytest.raises(InputError, match="learning_rate must be positive"):
        minimax.pair_rate(0.0, **one)
    with pytest.raises(InputError, match="sigma must be positive"):
        minimax.pair_level(ETA, **one, sigma=0.0)
    with pytest.raises(InputError, match="start must be finite and not negative"):
        minimax.pair_half_square(-1.0, 1.0, ETA, **one, sigma=1.0)
    with pytest.raises(InputError, match="multiples"):
        minimax.pair_half_square(1.0, 0.1, ETA, theory.discrete, **one, sigma=1.0)
