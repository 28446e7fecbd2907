import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError, _checks, _files


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), [1.0, 2.0], jnp.ones(3)])
def test_positive_lets_positive_numbers_pass(value):
    _checks.positive("x", value)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, [1.0, 0.0], "1", None, True])
def test_positive_refuses_the_rest_and_names_it(value):
    with pytest.raises(InputError, match="step must be"):
        _checks.positive("step", value)


def test_traced_values_pass_unseen():
    def fn(x):
        _checks.positive("x", x)
        _checks.finite("x", x)
        assert _checks.concrete(x) is None
        return x

    assert jax.jit(fn)(-1.0) == -1
    np.testing.assert_array_equal(jax.vmap(fn)(jnp.zeros(2)), 0)


@pytest.mark.parametrize("value", [np.int64(3), 3])
def test_at_least_gives_an_int(value):
    assert type(_checks.at_least("n", value, 3)) is int


@pytest.mark.parametrize("value", [2, 3.0, True, "3", None, np.array([3])])
def test_at_least_refuses_what_is_no_count(value):
    with pytest.raises(InputError, match="n must be a whole number of at least 3"):
        _checks.at_least("n", value, 3)


def test_finite_shortens_what_it_shows():
    _checks.finite("x", [1.0, -2.0])
    with pytest.raises(InputError, match="x must be finite") as caught:
        _checks.finite("x", np.full(10**6, np.nan))
    assert len(str(caught.value)) < 100


def test_known_names_the_nearest():
    _checks.known("family", "sgd", ["sgd"])
    with pytest.raises(InputError, match=r"unknown family 'sing'; did you mean sign") as caught:
        _checks.known("family", "sing", ["sign", "adaptive", "minimax"])
    assert str(caught.value).endswith("(known: adaptive, minimax, sign)")
    with pytest.raises(InputError, match=r"unknown family '§' \(known: a\)"):
        _checks.known("family", "§", ["a"])


def test_an_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_extra_imports_or_says_how_to():
    assert _checks.extra("json", "io").dumps(1) == "1"
    with pytest.raises(ImportError, match=r"pip install 'jaxsde\[plot\]'") as caught:
        _checks.extra("no_such_module_here", "plot")
    assert caught.value.name == "no_such_module_here"


def test_atomic_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with _files.atomic(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "one"

    def write_half():
        with _files.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_files_have_the_usual_permissions(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "atomic"
    plain.write_text("")
    with _files.atomic(path) as temporary:
        temporary.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
