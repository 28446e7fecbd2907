"""Every word through the float32 transforms, and 2²⁷ draws of every law."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform, noise
from jaxsde.engine.noise import _transforms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]
M = 2**32
HALF = 2**9
LOG, RADIUS, COSINE, COSINE_ABSOLUTE, UNIFORM = 2.6e-7, 1.7e-7, 1.9e-7, 1.8e-7, 9e-8  # documented


def worst(error):
    """The largest errors over all words, by chunks of 2¹⁸ that stay in a cache."""

    @jax.jit
    def over(high):
        first = high + jnp.arange(2**10, dtype=jnp.uint32) * HALF**2
        found = jax.lax.map(lambda w: jnp.stack(error(w)), first)
        return jnp.max(found, axis=0)

    return np.max([over(jnp.uint32(high)) for high in range(0, M, 2**28)], axis=0)


def test_the_logarithm_of_every_word():
    """log u, √(-2 log u) and u, relative, against float64's logarithm."""

    def error(first):
        w = first + jnp.arange(HALF**2, dtype=jnp.uint32)
        u = (w.astype(float) + 0.5) / M
        exact, log_u = jnp.log(u), _transforms.log_uniform(w, jnp.float32)
        radius, uniform = jnp.sqrt(-2 * log_u), _transforms.uniform(w, jnp.float32)
        return (
            jnp.max(jnp.abs(log_u.astype(float) / exact - 1)),
            jnp.max(jnp.abs(radius.astype(float) ** 2 / (-2 * exact) - 1)) / 2,  # to first order
            jnp.max(jnp.abs(uniform.astype(float) / u - 1)),
        )

    log_u, radius, uniform = worst(error)
    assert 0.9 * LOG < log_u < LOG
    assert 0.9 * RADIUS < radius < RADIUS
    assert 0.9 * UNIFORM < uniform < UNIFORM


def test_the_cosine_of_every_word():
    """cos θ and sin θ, absolute and relative, against cos(a + b) = cos a cos b - sin a sin b."""
    low = jnp.arange(HALF, dtype=jnp.uint32)
    b = 2 * np.pi / M * low.astype(float)[None]

    def error(first):
        high = first + HALF * low
        a = 2 * np.pi / M * high.astype(float)[:, None]
        cosine = jnp.cos(a) * jnp.cos(b) - jnp.sin(a) * jnp.sin(b)
        sine = jnp.sin(a) * jnp.cos(b) + jnp.cos(a) * jnp.sin(b)
        w = high[:, None] + low[None]
        found = []
        for transform, exact in ((_transforms.cosine, cosine), (_transforms.sine, sine)):
            off = jnp.abs(transform(w, jnp.float32).astype(float) - exact)
            size = jnp.abs(exact)  # here to 1e-15, so the zeros have a test of their own
            found += [jnp.max(off), jnp.max(jnp.where(size > 1e-6, off / size, 0))]
        return found

    absolute, relative = np.reshape(worst(error), (2, 2)).T
    for bound, found in ((COSINE_ABSOLUTE, absolute), (COSINE, relative)):
        assert np.all(0.9 * bound < found)
        assert np.all(found < bound)


EXTREMES = np.concatenate([np.arange(2**16), M - 1 - np.arange(2**16)])


def test_cosine_and_sine_to_relative_precision_at_their_zeros():
    d = EXTREMES - M * (EXTREMES >= M // 2)
    exact = np.sin(2 * np.pi / M * d)  # θ is small here, so this is precise
    for dtype, bound in ((jnp.float32, COSINE), (jnp.float64, 4e-16)):
        for zero, sign, transform in (
            (0, 1, _transforms.sine),
            (2**31, -1, _transforms.sine),
            (2**30, -1, _transforms.cosine),
            (3 * 2**30, 1, _transforms.cosine),
        ):
            w = jnp.asarray((zero + d) % M, jnp.uint32)
            found = np.asarray(jax.jit(transform, static_argnums=1)(w, dtype), float)
            assert np.all((found == 0) == (d == 0))
            away = d != 0
            assert np.max(np.abs(found[away] / (sign * exact[away]) - 1)) < bound


def some_words(count=2**23):
    """The extremes, and words all over."""
    random = np.random.default_rng(0).integers(0, M, count)
    return np.concatenate([EXTREMES, random]).astype(np.uint32)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no wider float to compare with")
def test_float64_is_at_full_accuracy():
    """Against 64-bit mantissas: within two units of float64's last place, ν's power apart."""
    w = some_words(2**20)
    w0, w1 = jnp.asarray(w), jnp.asarray(w[::-1].copy())
    pi = np.longdouble("3.14159265358979323846264338327950288")
    log_u = np.log((w.astype(np.longdouble) + np.longdouble(0.5)) / M)
    s = np.asarray(w1).astype(np.int32).astype(np.longdouble)
    cosine = np.sin(pi * (2**30 - abs(s)) / 2**31)
    sine = np.sign(s) * np.sin(pi * np.minimum(abs(s), 2**31 - abs(s)) / 2**31)

    def off(found, exact):
        assert np.all(np.isfinite(found))
        return np.max(np.abs(np.asarray(found) - exact) / np.where(exact == 0, 1, np.abs(exact)))

    assert off(_transforms.log_uniform(w0, jnp.float64), log_u) < 2.3e-16
    even, odd = Normal().pair(lambda _: (w0, w1), (), jnp.float64)
    assert off(even, np.sqrt(-2 * log_u) * cosine) < 5e-16
    assert off(odd, np.sqrt(-2 * log_u) * sine) < 5e-16
    for nu in (0.3, 1.0, 3.0, 30.0, 1000.0):
        found = StudentT(nu).pair(lambda *_, **__: (w0, w1), (), jnp.float64)[0]
        exact = np.sqrt(nu * np.expm1(-2 / np.longdouble(nu) * log_u)) * cosine
        assert off(found, exact) < 2e-15 * (1 + 3 / nu)


@pytest.mark.parametrize("nu", [0.26, 0.3, 0.5, 1, 2, 3, 10, 30, 1000])
def test_student_t_radius(nu):
    """√(ν (u^(-2/ν) - 1)) of float32 against float64, up to the farthest value."""
    nu, w = float(np.float32(nu)), some_words()
    angle = jnp.zeros(w.shape, jnp.uint32)  # cos 0 = 1
    pair = jax.jit(
        lambda w: StudentT(jnp.float32(nu)).pair(lambda *_, **__: (w, angle), (), jnp.float32)
    )
    found = np.asarray(pair(jnp.asarray(w))[0], float)
    exact = np.sqrt(nu * np.expm1(-2 / nu * np.log((w + 0.5) / M)))
    bound = 1e-6 * (1 + 3 / nu) - COSINE  # of a value, less its cosine's
    assert 0.15 * bound < np.max(np.abs(found / exact - 1)) < bound
    reach = np.sqrt(nu * (2 ** (66 / nu) - 1))
    assert scipy.stats.t(nu).sf(reach) < 2.0**-34  # half of what lies beyond
    np.testing.assert_allclose(found.max(), reach, rtol=bound)


def test_normals_in_float32_are_those_of_float64_to_their_precision():
    """Both factors at once, on 2²³ words and the largest radii."""

    @jax.jit
    def error(j):
        key = noise.threefry((jnp.uint32(3), jnp.uint32(j)), (jnp.uint32(0), jnp.uint32(0)))
        w0, w1 = noise.threefry(key, (jnp.arange(2**18, dtype=jnp.uint32), jnp.uint32(0)))
        found = []
        for shift in (0, 20):
            halves = [
                jnp.stack(Normal().pair(lambda _: (w0 >> shift, w1), (), dtype))  # noqa: B023
                for dtype in (jnp.float32, jnp.float64)
            ]
            size = jnp.maximum(jnp.abs(halves[1]), 1e-300)  # zero must be zero
            found.append(jnp.max(jnp.abs(halves[0].astype(float) - halves[1]) / size))
        return jnp.stack(found)

    found = np.max([error(j) for j in range(32)], axis=0)
    assert np.all(found > 2e-7)
    assert np.all(found < 4.1e-7)
    assert (1 + RADIUS) * (1 + COSINE) * (1 + 2.0**-24) - 1 < 4.2e-7


# Draws of the laws. A block holds 32 consecutive steps from step 64 b + 2, two slots and two
# neighbouring seeds of 2¹² paths: half of them from path 2¹¹ b on, half from 2³¹ + 2¹¹ b.
PATHS, STEPS, BLOCKS, BINS = 2**12, 32, 128, 2**10


@functools.partial(jax.jit, static_argnums=1)
def packed(draws, dtype, b):
    """The blocks of all pairs of steps: compiled apart, else each reader draws them again."""
    i, half = jnp.arange(PATHS, dtype=jnp.uint32), np.uint32(PATHS // 2)
    path = b * half + i % half + i // half * np.uint32(2**31)
    j = b * np.uint32(32) + 1 + jnp.arange(STEPS // 2, dtype=jnp.uint32)
    of = lambda seed, j: noise.blocks(draws, jnp.stack([jnp.uint32(0), seed]), j, path, dtype)  # noqa: E731
    return jax.vmap(jax.vmap(of, (None, 0)), (0, None))(jnp.uint32([20261121, 20261122]), j)


@functools.partial(jax.jit, static_argnums=1)
def block(draws, dtype, packed):
    """Values [seed, step, slot, ..., path]."""
    of = lambda parity: jax.vmap(jax.vmap(lambda p: noise.values(draws, p, parity, dtype)))  # noqa: E731
    found = jnp.stack([jnp.stack(of(parity)(packed), 2) for parity in (0, 1)], 2)
    return found.reshape(2, STEPS, *found.shape[3:])


def grams(v):
    """All correlations of places, v[seed, step, slot, coordinate, path], on three pairs of paths.

    One path with itself, with its neighbour, and with that 2³¹ further on.
    """
    v, half = v.reshape(-1, PATHS), PATHS // 2
    dot = lambda a, b: jnp.dot(a, b.T, precision="highest").astype(jnp.float64)  # noqa: E731
    return dot(v, v), dot(v[:, 1:], v[:, :-1]), dot(v[:, :half], v[:, half:])


def scores(grams, blocks, places):
    """Standard scores of the correlations, by how the places differ, and p-values of all at once.

    Under independence the entries are uncorrelated, and N(0, 1) over √N for N paths.
    """
    found, p_values = {}, {}
    place = np.indices(places).reshape(len(places), -1)
    # The first one's step in its pair; the differences in seed, step, slot and coordinate.
    differ = np.stack([
        np.broadcast_to(place[1][:, None] % 2, (place.shape[1],) * 2),
        *(axis[:, None] - axis for axis in place),
    ])  # fmt: skip
    for kind, gram, paths in zip(
        ("same path", "neighbour", "distant"), grams, (PATHS, PATHS - 1, PATHS // 2), strict=True
    ):
        of = np.tri(len(gram), k=-1) > 0 if kind == "same path" else np.ones(gram.shape, bool)
        z = np.asarray(gram)[of] / np.sqrt(blocks * paths)
        p_values[f"correlations, {kind}"] = scipy.stats.chi2(z.size).sf(np.sum(z**2))
        _, group = np.unique(differ[:, of], axis=1, return_inverse=True)
        sums = np.bincount(group, z) / np.sqrt(np.bincount(group))
        found[kind] = np.max(np.abs(sums))
    return found, p_values


def standardised(bins):
    """Of a code with `bins` equally likely values: itself and its square, both of unit variance."""
    code = np.arange(bins)
    for power in (1, 2):
        v = (code - (bins - 1) / 2) ** power
        spread = v.std() or 1.0  # the square of a sign is constant
        yield jnp.asarray((v - v.mean()) / spread, jnp.float32)


def check(draw, dtype, code, bins, moments=(), tails=(), reach=np.inf, blocks=BLOCKS, some=...):
    """Chi-square and Kolmogorov-Smirnov of the codes, correlations, moments and tails.

    Args:
        draw: two slots of it are drawn.
        dtype: of the values.
        code: from values to whole numbers below `bins`, all equally likely.
        bins: how many.
        moments: functions of the values, with their means and variances.
        tails: pairs of a bound and the probability beyond it, below where the bound is negative.
        reach: the largest size of a value.
        blocks: how many.
        some: coordinates of the codes that are correlated, all by default.
    """
    tables = list(standardised(bins))

    @jax.jit
    def summed(values):
        more = [jnp.sum(function(values), dtype=jnp.float64) for function, _, _ in moments]
        beyond = [jnp.sum(jnp.sign(t) * values > abs(t)) for t, _ in tails]
        return more, beyond, jnp.max(jnp.abs(values))

    code, correlate = jax.jit(code), jax.jit(grams)
    select = jax.jit(lambda table, codes: table[codes[:, :, :, some]])
    counts, total = np.zeros(bins, int), None
    for b in range(blocks):
        values = block([draw, draw], dtype, packed([draw, draw], dtype, jnp.uint32(b)))
        codes = code(values)
        of = [select(table, codes) for table in tables]
        *sums, largest = ([correlate(v) for v in of], *summed(values))
        found = np.bincount(np.asarray(codes).ravel(), minlength=bins)
        assert len(found) == bins
        counts += found
        total = sums if total is None else jax.tree.map(np.add, total, sums)
        assert largest <= reach
    N, n = blocks * values.size, counts.sum()
    assert N >= 1e8
    p_values = {"chi-square": scipy.stats.chisquare(counts).pvalue}
    # Only at the bins' edges, where the largest deviation is no larger than everywhere.
    distance = np.max(np.abs(np.cumsum(counts) / n - np.arange(1, bins + 1) / bins))
    p_values["Kolmogorov-Smirnov"] = scipy.stats.kstwobign.sf(np.sqrt(n) * distance)
    correlations, more, beyond = total
    for (t, p), found in zip(tails, beyond, strict=True):
        p_values[f"beyond {t}"] = scipy.stats.binomtest(int(found), N, p).pvalue
    largest = {}
    for power, sums in zip((1, 2), correlations, strict=True):
        if power == 2 and bins == 2:
            continue  # the square of a sign is constant
        found, p = scores(sums, blocks, of[0].shape[:4])
        largest |= {(kind, power): score for kind, score in found.items()}
        p_values |= {(kind, power): value for kind, value in p.items()}
    for k, ((_, mean, variance), found) in enumerate(zip(moments, more, strict=True)):
        largest["moment", k] = abs(found - N * mean) / np.sqrt(N * variance)
    assert min(p_values.values()) > 1e-7, p_values
    assert max(largest.values()) < 6.5, largest


# False alarms: 1e-7 for each of up to twelve p-values a case, 8e-11 for each of at most 20,000
# scores; in all thirteen cases together 4e-5. The keys are fixed.
def check_continuous(law, dtype, exact, moments, reach):
    """Equally likely bins, and tails of probability 1e-3 and 1e-6.

    Values and bounds are rounded to float32's 2⁻²⁴ of their size, which moves at most 2e-8 of the
    probability across a bin's edge: no part of a chi-square's own spread on 2²⁷ draws.
    """
    edges = jnp.asarray(exact.ppf(np.arange(1, BINS) / BINS), dtype)

    def code(values):
        return jnp.searchsorted(edges, values, side="right", method="scan_unrolled")

    signs = (-1, 1) if exact.ppf(0.5) == 0 else (1,)
    tails = [(sign * exact.isf(p), p) for sign in signs for p in (1e-3, 1e-6)]
    check(Draw((2,), law), dtype, code, BINS, moments, tails, reach)


PRECISIONS = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@PRECISIONS
def test_normal(dtype):
    moments = [
        (lambda z, k=k: z**k, mean, square - mean**2)
        for k, mean, square in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395))
    ]
    reach = np.sqrt(66 * np.log(2)) * (1 + 1e-6)
    check_continuous(Normal(), dtype, scipy.stats.norm, moments, reach)


@PRECISIONS
def test_uniform(dtype):
    mean = lambda k: (k % 2 == 0) / ((k + 1) * 2**k)  # noqa: E731
    moments = [
        (lambda u, k=k: (u - 0.5) ** k, mean(k), mean(2 * k) - mean(k) ** 2) for k in (1, 2, 3, 4)
    ]
    check_continuous(Uniform(), dtype, scipy.stats.uniform, moments, 1)


@pytest.mark.parametrize("nu", [0.5, 1, 2, 3, 30])
def test_student_t(nu):
    def absolute(p):
        """E|τ|^p, for p < ν."""
        gamma = scipy.special.gamma
        ratio = gamma((p + 1) / 2) * gamma((nu - p) / 2) / (np.sqrt(np.pi) * gamma(nu / 2))
        return nu ** (p / 2) * ratio

    powers = [k for k in (1, 2, 4) if 2 * k < nu]  # those whose variance is finite
    small = absolute(nu / 8)
    moments = [
        (jnp.sign, 0, 1),
        (lambda t: jnp.abs(t) ** (nu / 8), small, absolute(nu / 4) - small**2),
    ]
    for k in powers:
        mean = absolute(k) * (k % 2 == 0)
        moments.append((lambda t, k=k: t**k, mean, absolute(2 * k) - mean**2))
    reach = np.sqrt(nu * (2 ** (66 / nu) - 1)) * 1.0001
    law = StudentT(jnp.float32(nu))
    check_continuous(law, jnp.float32, scipy.stats.t(nu), moments, reach)


def test_rademacher():
    """Every pattern of eight coordinates; then signs, of one word and of two."""

    def patterns(values):
        bits = (values < 0).astype(jnp.int32).reshape(*values.shape[:3], 5, 8, PATHS)
        return jnp.sum(bits << jnp.arange(8).reshape(1, 1, 1, 1, 8, 1), -2)

    law, mean = Draw((40,), Rademacher()), (lambda s: s, 0, 1)
    sign = lambda s: (s < 0).astype(jnp.int32)  # noqa: E731
    check(law, jnp.float32, patterns, 256, [mean], reach=1, blocks=8)
    check(law, jnp.float32, sign, 2, reach=1, blocks=8, some=np.array([0, 1, 7, 31, 32, 39]))


def test_index_with_replacement():
    law = Draw((), Index(1000, 2))
    mean = (lambda i: i, 999 / 2, (1000**2 - 1) / 12)
    check(law, jnp.float32, lambda i: i, 1000, [mean], reach=999)


def test_index_without_replacement():
    """Every subset of three of six, all twenty equally likely; 1.5e8 indices."""
    subsets = sorted(sum(2**i for i in s) for s in itertools.combinations(range(6), 3))
    rank = np.full(64, 20)  # a subset with a repetition is none of them
    rank[subsets] = np.arange(20)

    def code(values):
        return jnp.asarray(rank)[jnp.sum(1 << values, 4)]

    check(Draw((2,), Index(6, 3, replace=False)), jnp.float32, code, 20, reach=5, blocks=48)
