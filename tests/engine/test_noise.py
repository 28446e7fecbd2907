import functools

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsde import InputError
from jaxsde.engine import Draw, Normal, StudentT, Uniform, noise

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


LAWS = {
    "normal": (Normal, None, scipy.stats.norm()),
    "uniform": (Uniform, None, scipy.stats.uniform()),
    **{f"student_t({nu:g})": (StudentT, nu, scipy.stats.t(nu)) for nu in (0.5, 1, 2, 3, 30)},
}
PATHS = 2**13


@functools.partial(jax.jit, static_argnums=(0, 2))
def many(law, nu, dtype):
    """Values [step, slot, coordinate, path] of four steps, two slots and two coordinates."""
    law = law() if nu is None else law(nu)
    draws = (Draw((2,), law), Draw((2,), law))
    index = jnp.arange(PATHS, dtype=jnp.uint32)
    key = noise.key_words(jax.random.key(5))
    even, odd = jax.vmap(lambda j: pair(draws, key, j, index, dtype))(jnp.uint32([6, 7]))
    return [half[i] for i in range(2) for half in (jnp.stack(even, 1), jnp.stack(odd, 1))]


@pytest.mark.parametrize("name", LAWS)
def test_values_are_independent_draws_of_their_law(name, precision):
    law, nu, exact = LAWS[name]
    dtype = jnp.dtype(precision)
    values = np.asarray(many(law, None if nu is None else np.asarray(nu, dtype), dtype))
    assert values.dtype == dtype
    u = exact.cdf(values.astype(np.float64))
    # Kolmogorov-Smirnov on 2¹⁷ values, false alarms 1e-5 a case (14 cases).
    assert scipy.stats.kstest(u.ravel(), "uniform", method="asymp").pvalue > 1e-5
    # Correlations of u and of (u - 1/2)²: 2 x 7 scores a case, each beyond 5 with 6e-7.
    for v in (u - 0.5, (u - 0.5) ** 2 - 1 / 12):
        v = v / v.std()
        products = {
            "steps of one pair": v[::2] * v[1::2],
            "consecutive pairs": v[:2] * v[2:],
            "slots": v[:, 0] * v[:, 1],
            "coordinates": v[:, :, 0] * v[:, :, 1],
            "neighbouring paths": v[..., ::2] * v[..., 1::2],
            "distant paths": v[..., : PATHS // 2] * v[..., PATHS // 2 :],
            "coordinate and path": v[:, :, 0, 1:] * v[:, :, 1, :-1],
        }
        scores = {pair: p.sum() / np.sqrt(p.size) for pair, p in products.items()}
        assert max(map(abs, scores.values())) < 5, scores


def test_normal_moments(precision):
    values = np.asarray(many(Normal, None, jnp.dtype(precision)), np.float64).ravel()
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


def test_a_key_and_its_words_give_the_same_noise():
    key = jax.random.key(3)
    np.testing.assert_array_equal(noise.key_words(key), jax.random.key_data(key))
    np.testing.assert_array_equal(noise.key_words(jax.random.PRNGKey(3)), noise.key_words(key))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jax.random.key(0, impl="rbg"), "threefry key, got rbg"),
        (lambda: jax.random.split(jax.random.key(0)), "one JAX key"),
        (lambda: np.zeros(4, np.uint32), "one JAX key"),
        (lambda: np.zeros(2, np.int32), "one JAX key"),
        (lambda: np.zeros((), np.uint32), "one JAX key"),
        (lambda: 0, "one JAX key"),
    ],
)
def test_other_keys_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        noise.key_words(make())


def test_a_draw_with_too_many_coordinates_is_refused():
    with pytest.raises(InputError, match="at most"):
        Draw((2**16, 2**15), Normal())
