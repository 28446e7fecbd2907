"""The streams of benchmarks/randomness.py; what reads them, dieharder, is not needed here."""

import functools
import importlib.util
import itertools
import pathlib

import numpy as np
import pytest

FILE = pathlib.Path(__file__).parents[1] / "benchmarks" / "randomness.py"
M = 2**32


@functools.cache
def randomness():
    specification = importlib.util.spec_from_file_location("randomness", FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def cipher(key, counter):
    """Threefry-2x32-20 of Salmon et al. (2011), on NumPy's uint64."""
    rotations = [13, 15, 26, 6, 17, 29, 16, 24]
    key, counter = ([np.asarray(w, np.uint64) for w in pair] for pair in (key, counter))
    extended = [*key, key[0] ^ key[1] ^ np.uint64(0x1BD11BDA)]
    x, y = (c + k & np.uint64(M - 1) for c, k in zip(counter, key, strict=True))
    for r in range(20):
        left, right = np.uint64(rotations[r % 8]), np.uint64(32 - rotations[r % 8])
        x = x + y & np.uint64(M - 1)
        y = (y << left | y >> right) & np.uint64(M - 1) ^ x
        if r % 4 == 3:
            s = r // 4 + 1
            x = x + extended[s % 3] & np.uint64(M - 1)
            y = y + extended[(s + 1) % 3] + np.uint64(s) & np.uint64(M - 1)
    return x, y


def documented(stream, places, seed, first_j, path):
    """The words at some places of a block, from the layout in jaxsde/engine/noise/__init__.py."""
    axes = stream.order.split()
    at = dict(zip(axes, np.unravel_index(places, [getattr(stream, a) for a in axes]), strict=True))
    slot_key = cipher((np.uint64(0), seed + at["seed"]), (first_j + at["j"], at["slot"]))
    pair = cipher(slot_key, (path + at["path"], at["coordinate"]))
    return np.where(at["half"] == 0, *pair)


@pytest.mark.parametrize(
    "name", ["paths", "steps", "coordinates", "pairs", "first", "slots", "seeds"]
)
def test_streams_are_the_words_of_the_layout(name):
    module = randomness()
    stream = module.STREAMS[name]
    size = np.prod([getattr(stream, axis) for axis in stream.order.split()])
    places = np.r_[:4096, size - 4096 : size, np.random.default_rng(0).integers(0, size, 4096)]
    first, second = itertools.islice(module.blocks(name, 3), 2)
    for words, turn in ((first, 0), (second, 1)):
        assert words.dtype == np.uint32
        assert words.shape == (size,)
        exact = documented(stream, places, 3, turn * stream.j, 0)
        np.testing.assert_array_equal(words[places], exact)


def test_reversed_bits_are_reversed():
    word = np.random.default_rng(0).integers(0, M, 100, dtype=np.uint32)
    exact = [int(f"{w:032b}"[::-1], 2) for w in word]
    np.testing.assert_array_equal(randomness().reverse(word), exact)


def test_a_suspicious_p_value_passes_only_if_another_seed_is_not():
    result = lambda p: randomness().Result("test", 0, 1, 1, p)  # noqa: E731
    passed = randomness().passed
    assert passed(result(0.3), None)
    for p in (1e-4, 1 - 1e-4):
        assert passed(result(p), result(0.5))
        assert not passed(result(p), result(0.9995))
    assert not passed(result(0.0), result(0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", "stpes"], "did you mean steps"),
        (["--bits", "plan"], "did you mean plain"),
        (["--battery", "fast"], "unknown battery"),
        (["--seed", "-1"], "must lie in"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(SystemExit, match=message):
        randomness().main(arguments)


def test_a_missing_tool_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(randomness().shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="apt-get install dieharder"):
        randomness().main([])
