"""What the noise takes, and what it refuses with one line."""

import jax
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform, noise


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


@pytest.mark.parametrize(
    ("shape", "law"),
    [
        ((2**16, 2**15), Normal()),
        ((2**31,), Rademacher()),
        ((2**32, 2**32), Uniform()),  # 2⁶⁴, which is zero where it wraps
        ((2**30,), Index(5, 2)),
        ((2**16,), Index(2**20, 2**15, replace=False)),
        ((), Index(5, 2**31)),
    ],
)
def test_a_draw_with_too_many_coordinates_is_refused(shape, law):
    with pytest.raises(InputError, match="at most 2³¹ - 1 coordinates"):
        Draw(shape, law)


def test_a_draw_with_as_many_coordinates_as_the_counters_hold_is_not():
    Draw((2**31 - 1,), Normal())
    Draw((2**30 - 1,), Index(5, 2))
    assert 2 * (2**31 - 2) + 1 < 2**32  # the last coordinate of a law that takes two blocks each


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Index(0, 1), "n must be a whole number of at least 1, got 0"),
        (lambda: Index(2.0, 1), "n must be a whole number"),
        (lambda: Index(5, 0), "batch must be a whole number of at least 1, got 0"),
        (lambda: Index(2**31, 1), "n must be below 2³¹, got 2147483648"),
        (lambda: Index(3, 4, replace=False), "as many to choose from, got n = 3"),
        (lambda: StudentT(np.float32(0)), "degrees_of_freedom must be positive and finite"),
        (lambda: StudentT(-1.0), "degrees_of_freedom must be positive and finite"),
        (lambda: StudentT(np.inf), "degrees_of_freedom must be positive and finite"),
        (lambda: Draw(3, Normal()), r"shape must be a tuple such as \(3,\), got 3"),
        (lambda: Draw((2, -1), Normal()), "a size in shape must be a whole number of at least 0"),
    ],
)
def test_bad_laws_and_shapes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
