import functools
import itertools

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform, noise
from jaxsde.engine.noise import _transforms

KNOWN = [  # key, counter, output: Random123's kat_vectors for threefry2x32 with 20 rounds
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
KEY = np.array([0x13198A2E, 0x03707344], np.uint32)
M = 2**32


def cipher(key, counter):
    """Threefry-2x32-20 of Salmon et al. (2011) in Python integers, one round at a time."""
    rotations = [13, 15, 26, 6, 17, 29, 16, 24]
    extended = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = ((c + k) % M for c, k in zip(counter, key, strict=True))
    for r in range(20):
        x = (x + y) % M
        y = (y << rotations[r % 8] | y >> 32 - rotations[r % 8]) % M ^ x
        if r % 4 == 3:
            s = r // 4 + 1
            x, y = (x + extended[s % 3]) % M, (y + extended[(s + 1) % 3] + s) % M
    return x, y


def words(key, j, slot, path, coordinate):
    return cipher(cipher([int(word) for word in key], (j, slot)), (path, coordinate))


def expected(law, key, step, slot, path, coordinate):
    j, odd = divmod(step, 2)
    if isinstance(law, Rademacher):
        word = words(key, j, slot, path, coordinate // 32)[odd]
        return 1 - 2 * (word >> coordinate % 32 & 1)
    if isinstance(law, StudentT):
        coordinate, nu = 2 * coordinate + odd, float(law.degrees_of_freedom)
    w = words(key, j, slot, path, coordinate)
    u = [(word + 0.5) / M for word in w]
    if isinstance(law, Uniform):
        return u[odd]
    angle = 2 * np.pi * (w[1] - M * (w[1] >= M // 2)) / M
    if isinstance(law, StudentT):
        return np.sqrt(nu * (u[0] ** (-2 / nu) - 1)) * np.cos(angle)
    return np.sqrt(-2 * np.log(u[0])) * (np.sin(angle) if odd else np.cos(angle))


def expected_indices(law, key, step, slot, path, c):
    """The c-th batch of a draw: Floyd's method without replacement, ⌊n U⌋ with it."""
    j, odd = divmod(step, 2)
    chosen = []
    for i in range(law.batch):
        w0, w1 = words(key, j, slot, path, 2 * (c * law.batch + i) + odd)
        below = lambda n: (w0 * M + w1) * n // M**2  # noqa: B023, E731
        last = law.n - law.batch + i
        number = below(law.n) if law.replace else below(last + 1)
        chosen.append(last if not law.replace and number in chosen else number)
    return chosen


class Raw(noise.Law):
    def pack(self, block, like):
        return block(like.shape)

    def value(self, packed, parity, like):
        return packed[parity]


@functools.partial(jax.jit, static_argnums=4)
def pair(draws, key, j, path, dtype):
    """The values of steps 2j and 2j + 1."""
    packed = noise.blocks(draws, key, j, path, dtype)
    return [noise.values(draws, packed, parity, dtype) for parity in (0, 1)]


def raw(draws, j, path, key=KEY):
    found = pair(draws, key, np.uint32(j), np.asarray(path, np.uint32), jnp.float32)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(("key", "counter", "output"), KNOWN)
def test_threefry_gives_the_published_vectors(key, counter, output):
    key, counter = (tuple(np.uint32(w) for w in pair) for pair in (key, counter))
    found = jax.jit(noise.threefry)(key, counter)
    assert tuple(int(w) for w in found) == output
    assert cipher([int(w) for w in key], [int(w) for w in counter]) == output


def test_threefry_is_jax_randoms():
    counter = np.random.default_rng(0).integers(0, M, (2, 500), dtype=np.uint32)
    theirs = jax.extend.random.threefry_2x32(jnp.asarray(KEY), jnp.asarray(counter.ravel()))
    ours = jax.jit(noise.threefry)((KEY[0], KEY[1]), (counter[0], counter[1]))
    np.testing.assert_array_equal(np.asarray(ours), theirs.reshape(2, -1))


DRAWS = {"a": Draw((), Raw()), "b": [Draw((3,), Raw()), Draw((2, 2), Raw())]}


def test_words_are_two_ciphers_of_step_slot_path_and_coordinate():
    path = np.concatenate([np.arange(61), [2**31 - 1, 2**31, 2**32 - 1]])
    for j in (0, 1, 2**30, 2**32 - 1):
        even, odd = (jax.tree.leaves(half) for half in raw(DRAWS, j, path))
        assert [half.shape for half in even] == [(64,), (3, 64), (2, 2, 64)]
        for slot, size in enumerate((1, 3, 4)):
            both = np.stack([even[slot].reshape(size, 64), odd[slot].reshape(size, 64)], -1)
            for i in (0, 1, 60, 61, 62, 63):
                known = [words(KEY, j, slot, int(path[i]), c) for c in range(size)]
                np.testing.assert_array_equal(both[:, i], known)


def test_words_do_not_depend_on_which_other_paths_are_drawn():
    for near, far in zip(
        *(jax.tree.leaves(raw(DRAWS, 9, stride * np.arange(64))) for stride in (1, 3)), strict=True
    ):
        np.testing.assert_array_equal(near[..., ::3], far[..., :22])


def test_words_of_different_keys_steps_slots_paths_and_coordinates_differ():
    found = [
        raw(DRAWS, j, np.arange(64), key) for j in (0, 1, 2**32 - 1) for key in (KEY, KEY[::-1])
    ]
    every = np.concatenate([half.ravel() for half in jax.tree.leaves(found)])
    # 6,144 random words: 0.004 collisions are expected, so a sound layout passes with 99.6 %;
    # the key is fixed and one block shared between two places would make dozens.
    assert every.size == 6144
    assert len(np.unique(every)) == every.size


def test_values_are_the_documented_functions_of_the_words(precision):
    dtype, j = jnp.dtype(precision), 2**20 + 3
    laws = [Normal(), Uniform(), StudentT(np.asarray(0.7, dtype)), StudentT(np.asarray(30, dtype))]
    paths = np.array([0, 3, 2**31 + 5], np.uint32)
    for odd, half in enumerate(pair([Draw((2,), law) for law in laws], KEY, j, paths, dtype)):
        for slot, (law, values) in enumerate(zip(laws, half, strict=True)):
            exact = [
                [expected(law, KEY, 2 * j + odd, slot, int(i), c) for i in paths] for c in range(2)
            ]
            assert values.dtype == dtype
            # Some ten roundings, which u^(-2/ν) amplifies by at most (2/ν) log(1/u) < 10 here.
            tolerance = 100 * np.finfo(dtype).eps
            np.testing.assert_allclose(values, exact, rtol=tolerance, atol=tolerance)


# step, slot, path, coordinate; the block's words; the value of a normal: the layout, frozen. The
# numbers are `cipher`'s and `expected`'s under KEY, written down.
FROZEN = [
    (0, 0, 0, 0, (0x96D67C09, 0x08AB3EB6), 1.0053703540932044),
    (1, 0, 0, 0, (0x96D67C09, 0x08AB3EB6), 0.2171975267714394),
    (2, 0, 0, 1, (0x9ABD191F, 0x5525620B), -0.4977167090936174),
    (7, 1, 12345, 4, (0xEC7F124D, 0x8A4BF262), -0.09954137793063277),
    (2147483647, 0, 2147483648, 0, (0x838B0330, 0xD05F653F), -1.0620619016691626),
    (8589934590, 2, 4294967295, 3, (0x0CE928D2, 0x03B5C2EA), 2.434097715020419),
]


def test_the_layout_is_frozen(x64):
    draws = [Draw((5,), Raw())] * 3
    normals = [Draw((5,), Normal())] * 3
    for step, slot, path, coordinate, block, normal in FROZEN:
        (j, odd), index = divmod(step, 2), np.array([path], np.uint32)
        found = [int(half[slot][coordinate, 0]) for half in raw(draws, j, index)]
        assert tuple(found) == block == words(KEY, j, slot, path, coordinate)
        value = pair(normals, KEY, np.uint32(j), index, jnp.float64)[odd][slot][coordinate, 0]
        np.testing.assert_allclose(value, normal, rtol=1e-14)


def test_signs_are_the_bits_of_the_words(precision):
    dtype, j = jnp.dtype(precision), 2**31 - 5
    paths = np.array([0, 3, 2**31 + 5], np.uint32)
    shapes = [(), (3,), (40,), (5, 13), (0,), (2, 0)]
    draws = [Draw(shape, Rademacher()) for shape in shapes]
    for odd, half in enumerate(pair(draws, KEY, j, paths, dtype)):
        for slot, (values, shape) in enumerate(zip(half, shapes, strict=True)):
            exact = [
                [expected(Rademacher(), KEY, 2 * j + odd, slot, int(i), c) for i in paths]
                for c in range(int(np.prod(shape)))
            ]
            assert values.dtype == dtype
            np.testing.assert_array_equal(values, np.reshape(exact, (*shape, 3)))


INDICES = [
    Index(1, 2), Index(10, 4), Index(2**31 - 1, 3), Index(1, 1, replace=False),
    Index(6, 3, replace=False), Index(5, 5, replace=False), Index(2**31 - 1, 3, replace=False),
]  # fmt: skip


def test_indices_are_the_documented_functions_of_the_words(precision):
    j, paths = 2**31 - 7, np.array([0, 5, 6, 2**32 - 1], np.uint32)
    draws = [Draw(shape, law) for law in INDICES for shape in ((), (2, 2))]
    for odd, half in enumerate(pair(draws, KEY, j, paths, jnp.dtype(precision))):
        for slot, (draw, values) in enumerate(zip(draws, half, strict=True)):
            size, law = int(np.prod(draw.shape)), draw.law
            exact = [
                [expected_indices(law, KEY, 2 * j + odd, slot, int(i), c) for c in range(size)]
                for i in paths
            ]
            assert values.dtype == jnp.int32
            exact = np.moveaxis(np.array(exact), 0, -1).reshape(*draw.shape, law.batch, 4)
            np.testing.assert_array_equal(values, exact)


def test_numbers_below_n_are_whole_parts_of_64_bit_products():
    random = np.random.default_rng(0)
    corners = np.array(
        list(itertools.product([0, 1, 2**16 - 1, 2**16, M - 2**16, M - 1], repeat=2))
    )
    w = np.concatenate([corners, random.integers(0, M, (2000, 2))])
    n = np.array([1, 2, 3, 1000, 2**16 - 1, 2**16 + 1, 2**31 - 1])[:, None]
    found = jax.vmap(_transforms.below, (0, None))(
        jnp.asarray(n, jnp.uint32), tuple(jnp.asarray(w.T, jnp.uint32))
    )
    exact = [[(int(a) * M + int(b)) * int(m) // M**2 for a, b in w] for m in n[:, 0]]
    np.testing.assert_array_equal(found, exact)


def test_float32_transforms_keep_their_stated_precision(x64):
    """Relative errors on some words; a slow test goes through all of them."""
    random = np.random.default_rng(0).integers(0, M, 2**16)
    w = np.concatenate([np.arange(2**12), M - 1 - np.arange(2**12), 2**30 + np.arange(99), random])
    u, s = (w + 0.5) / M, w - M * (w >= M // 2)
    exact = {
        "uniform": (u, 9e-8),
        "log_uniform": (np.log(u), 2.6e-7),
        "cosine": (np.sin(np.pi * (2**30 - np.abs(s)) / 2**31), 1.9e-7),
        "sine": (
            np.sign(s) * np.sin(np.pi * np.minimum(np.abs(s), 2**31 - np.abs(s)) / 2**31),
            1.9e-7,
        ),
    }
    for name, (value, bound) in exact.items():
        transform = jax.jit(getattr(_transforms, name), static_argnums=1)
        found = np.asarray(transform(jnp.asarray(w, jnp.uint32), jnp.dtype("float32")), float)
        assert np.max(np.abs(found - value) - bound * np.abs(value)) <= 0, name


def test_values_have_the_asked_precision_whatever_the_parameters(x64):
    draws = [Draw((), StudentT(nu)) for nu in (np.float64(3), np.float32(3), 3.0)]
    for dtype in (jnp.dtype("float32"), jnp.dtype("float64")):
        for half in pair(draws, KEY, np.uint32(0), np.arange(2, dtype=np.uint32), dtype):
            assert all(values.dtype == dtype for values in half)


LAWS = {
    "normal": (Normal, None, scipy.stats.norm()),
    "uniform": (Uniform, None, scipy.stats.uniform()),
    **{f"student_t({nu:g})": (StudentT, nu, scipy.stats.t(nu)) for nu in (0.5, 1, 2, 3, 30)},
}
PATHS = 2**13


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def many(law, dtype, shape=(2,)):
    """Values [step, slot, coordinate, path] of four steps and two slots."""
    draws = (Draw(shape, law), Draw(shape, law))
    index = jnp.arange(PATHS, dtype=jnp.uint32)
    key = noise.key_words(jax.random.key(5))
    even, odd = jax.vmap(lambda j: pair(draws, key, j, index, dtype))(jnp.uint32([6, 7]))
    return [half[i] for i in range(2) for half in (jnp.stack(even, 1), jnp.stack(odd, 1))]


@pytest.mark.parametrize("name", LAWS)
def test_values_are_independent_draws_of_their_law(name, precision):
    law, nu, exact = LAWS[name]
    dtype = jnp.dtype(precision)
    values = np.asarray(many(law() if nu is None else law(np.asarray(nu, dtype)), dtype))
    assert values.dtype == dtype
    u = exact.cdf(values.astype(np.float64))
    # Kolmogorov-Smirnov on 2¹⁷ values, false alarms 1e-5 a case (14 cases).
    assert scipy.stats.kstest(u.ravel(), "uniform", method="asymp").pvalue > 1e-5
    # Correlations of u and of (u - 1/2)²: 2 x 7 scores a case, each beyond 5 with 6e-7.
    for v in (u - 0.5, (u - 0.5) ** 2 - 1 / 12):
        found = scores(v / v.std())
        assert max(map(abs, found.values())) < 5, found


def scores(v):
    """Standard scores of the correlations of v[step, slot, coordinate, path] between places."""
    products = {
        "steps of one pair": v[::2] * v[1::2],
        "consecutive pairs": v[:2] * v[2:],
        "slots": v[:, 0] * v[:, 1],
        "coordinates": v[:, :, 0] * v[:, :, 1],
        "neighbouring paths": v[..., ::2] * v[..., 1::2],
        "distant paths": v[..., : PATHS // 2] * v[..., PATHS // 2 :],
        "coordinate and path": v[:, :, 0, 1:] * v[:, :, 1, :-1],
    }
    return {pair: p.sum() / np.sqrt(p.size) for pair, p in products.items()}


def equally_likely(counts):
    """The p-value of Pearson's chi-square against equal probabilities."""
    return scipy.stats.chisquare(np.ravel(counts)).pvalue


# Of the discrete laws: each p-value below 1e-5 and each of 7 scores beyond 5 (6e-7) is a false
# alarm; in float32 and float64 the bits are the same.
def test_signs_are_fair_and_independent():
    v = np.asarray(many(Rademacher(), jnp.float32, (40,)))
    assert set(np.unique(v)) == {-1, 1}
    for low in range(0, 40, 8):  # every pattern of eight coordinates
        bits = np.moveaxis(v[:, :, low : low + 8], 2, -1) > 0
        assert equally_likely(np.bincount(np.ravel(bits @ 2 ** np.arange(8)))) > 1e-5
    for first, second in ((0, 1), (0, 32), (31, 32), (7, 39)):
        found = scores(v[:, :, [first, second]])
        assert max(map(abs, found.values())) < 5, found


@pytest.mark.parametrize("n", [2, 13, 1000, 2**31 - 1])
def test_indices_with_replacement_are_uniform_and_independent(n):
    values = np.asarray(many(Index(n, 2), jnp.float32, ()), np.int64)
    assert values.min() >= 0
    assert values.max() < n
    bins = min(n, 1024)  # of 2³¹ - 1, whole parts of 1024 U: their probabilities differ by 1e-6
    assert equally_likely(np.bincount(values.ravel() * bins // n, minlength=bins)) > 1e-5
    found = scores((values - (n - 1) / 2) / np.sqrt((n**2 - 1) / 12))
    assert max(map(abs, found.values())) < 5, found


def test_subsets_without_replacement_are_equally_likely_and_independent():
    values = np.asarray(many(Index(6, 3, replace=False), jnp.float32), np.int64)
    subsets = [sum(2**i for i in s) for s in itertools.combinations(range(6), 3)]
    found = (2**values).sum(3)  # a repeated index would not be among them
    assert set(np.unique(found)) == set(subsets)
    rank = np.searchsorted(np.sort(subsets), found)
    assert equally_likely(np.bincount(rank.ravel(), minlength=20)) > 1e-5
    found = scores((rank - 9.5) / np.sqrt((20**2 - 1) / 12))
    assert max(map(abs, found.values())) < 5, found


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (7, 7), (40, 7), (1000, 31), (2**31 - 1, 5)])
def test_indices_without_replacement_are_distinct_and_cover(n, batch):
    values = np.asarray(many(Index(n, batch, replace=False), jnp.float32, ()), np.int64)
    values = np.sort(np.moveaxis(values, 2, -1).reshape(-1, batch), axis=-1)
    assert values.min() >= 0
    assert values.max() < n
    assert np.all(np.diff(values) > 0)
    if batch == n:
        np.testing.assert_array_equal(values - np.arange(n), 0)
    elif n <= 1000:
        # The counts of one subset have covariance p(1 - p)(I - 1/n) n/(n - 1), p = batch/n.
        p, count = batch / n, np.bincount(values.ravel(), minlength=n)
        square = np.sum((count - len(values) * p) ** 2) / (len(values) * p * (1 - p)) * (1 - 1 / n)
        assert 1e-5 < scipy.stats.chi2(n - 1).sf(square) < 1 - 1e-5


def test_normal_moments(precision):
    values = np.asarray(many(Normal(), jnp.dtype(precision)), np.float64).ravel()
    # Central limit theorem on 2¹⁷ values; E z^2m = 1, 3, 15, 105, 10395 for 2m = 2, 4, 6, 8, 12.
    # Each of the five scores beyond 5 with 6e-7.
    n = values.size
    for power, mean, square in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)):
        score = np.sqrt(n) * (np.mean(values**power) - mean) / np.sqrt(square - mean**2)
        assert abs(score) < 5, power


def test_uniforms_are_never_zero_and_keep_all_bits_near_zero(precision):
    dtype = jnp.dtype(precision)
    extreme = jnp.asarray([0, 1, M - 1], jnp.uint32)
    values = np.asarray(Uniform().pair(lambda _: (extreme, extreme), (), dtype)[0], np.float64)
    np.testing.assert_array_equal(values[:2], [0.5 / M, 1.5 / M])
    np.testing.assert_array_equal(values[2], np.array((M - 0.5) / M, dtype))
    normals = Normal().pair(lambda _: (extreme, extreme), (), dtype)
    assert np.all(np.isfinite(normals))
    assert np.max(np.abs(normals)) <= 6.76389  # √(-2 log 2⁻³³)
