"""Small networks with one hidden layer, on data.

Every penalty here is r |x|² over all weights, as usual for these networks; that of
`LogisticRegression` is (r/2) |x|².
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from jaxsde import _checks
from jaxsde.problems.finite_sum import Supervised
from jaxsde.problems.regression import breast_cancer_data, penalty, two_classes

ACTIVATIONS = {"linear": lambda z: z, "sigmoid": jax.nn.sigmoid}


class Layers(NamedTuple):
    """The weights of a network with one hidden layer, two arrays."""

    first: Any
    second: Any


def check_layers(x: Any, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Refuses weights of other shapes than the network's."""
    got = tuple(np.shape(layer) for layer in x) if isinstance(x, Layers) else type(x).__name__
    if got != (first, second):
        raise _checks.InputError(
            "x must be jaxsde.problems.Layers(first, second) of arrays with the shapes "
            f"{first} and {second}, got {got}"
        )


def normal_layers(seed: int, first: tuple[int, ...], second: tuple[int, ...], h: int) -> Layers:
    """Layers of independent N(0, 1/h), in the precision that JAX is set to."""
    rng = np.random.default_rng(_checks.at_least("seed", seed, 0))
    dtype = jnp.result_type(float)
    return Layers(*((rng.normal(size=s) / np.sqrt(h)).astype(dtype) for s in (first, second)))


def square(x: Layers) -> Scalar:
    """|x|² over all weights."""
    return jnp.sum(x.first**2) + jnp.sum(x.second**2)


class DeepClassifier(Supervised):
    """f(x) = (1/n) Σⱼ log(1 + exp(-(2yⱼ - 1) zⱼ)) + r |x|², a finite sum over rows.

    x = Layers(W, w), W `(d, h)` and w `(h,)`. The logits are z = A W w with activation "linear"
    and z = s(s(A W) w) with "sigmoid", s(t) = 1/(1 + e⁻ᵗ). Labels y are 0 and 1 and enter as
    2y - 1 = ±1: multiplying z by y itself, as done in code for arXiv 2301.08203, would make every
    row with y = 0 a constant.

    Args:
        features: A, rows aⱼ, `(n, d)`.
        labels: y, zeros and ones, `(n,)`.
        width: h, the number of hidden units.
        activation: "linear" or "sigmoid".
        regularization: r >= 0.

    Raises:
        InputError: shapes do not match, labels other than 0 and 1, width below 1, an unknown
            activation, or r < 0.
    """

    regularization: Float[Array, ""]
    width: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(self, features, labels, width, activation="linear", regularization=0.05):
        self.features, self.labels = two_classes(features, labels)
        self.width = _checks.at_least("width", width, 1)
        _checks.known("activation", activation, ACTIVATIONS)
        self.activation = activation
        self.regularization = penalty(regularization)

    def logits(self, x: Layers) -> Float[Array, " n"]:
        """z = s(s(A W) w), without s if the network is linear."""
        check_layers(x, (self.features.shape[1], self.width), (self.width,))
        s, (W, w) = ACTIVATIONS[self.activation], x
        return s(s(self.features @ W) @ w)

    def loss(self, x: Layers) -> Scalar:
        """Mean cross-entropy plus r |x|²; softplus(z) - y z is -log p(y) at logit z."""
        z = self.logits(x)
        return jnp.mean(jax.nn.softplus(z) - self.labels * z) + self.regularization * square(x)

    def initial(self, seed: int = 0) -> Layers:
        """A random start, every weight N(0, 1/h)."""
        h = self.width
        return normal_layers(seed, (self.features.shape[1], h), (h,), h)


def breast_cancer_classifier(width=20, activation="linear", regularization=0.05) -> DeepClassifier:
    """A `DeepClassifier` on the Wisconsin breast cancer data that scikit-learn ships.

    569 tumours, 30 features standardised to mean 0 and variance 1. arXiv 2301.08203 uses the
    defaults, and width 30 with activation "sigmoid".

    Raises:
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    return DeepClassifier(*breast_cancer_data(), width, activation, regularization)


class TeacherStudent(Supervised):
    """f(x) = (1/n) Σⱼ (s(aⱼᵀ W) w - yⱼ)² + r |x|², a finite sum over rows.

    The student x = Layers(W, w), W `(d, h)` and w `(h,)`, has sigmoid units s(t) = 1/(1 + e⁻ᵗ)
    and learns a teacher of the same shape: y = φ(A W*) w* + b, one offset b for all rows. With
    φ = s, b = 0 and r = 0 the teacher's weights are a minimiser, and f is 0 there.

    Args:
        features: A, rows aⱼ, `(n, d)`.
        teacher: Layers(W*, w*).
        offset: b.
        activation: the teacher's φ, "sigmoid" or "linear".
        regularization: r >= 0.

    Raises:
        InputError: shapes do not match, entries that are not finite, an unknown activation, or
            r < 0.
    """

    teacher: Layers
    regularization: Float[Array, ""]

    def __init__(
        self,
        features: ArrayLike | Sequence,
        teacher: Layers,
        offset: ArrayLike = 0.0,
        activation="sigmoid",
        regularization: ArrayLike = 0.005,
    ):
        features = jnp.asarray(features, float)
        if features.ndim != 2:
            raise _checks.InputError(f"features must be (n, d), got {features.shape}")
        h = np.size(getattr(teacher, "second", 0))
        check_layers(teacher, (features.shape[1], h), (h,))
        weights = Layers(*(jnp.asarray(layer, float) for layer in teacher))
        for name, value in (("features", features), *weights._asdict().items(), ("offset", offset)):
            _checks.finite(name, value)
        _checks.known("activation", activation, ACTIVATIONS)
        self.features = features
        self.labels = ACTIVATIONS[activation](features @ weights.first) @ weights.second + offset
        self.teacher = weights
        self.regularization = penalty(regularization)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        rows: int = 10,
        inputs: int = 5,
        width: int = 100,
        offset: float = 2.0,
        activation: str = "sigmoid",
        regularization: float = 0.005,
    ) -> "TeacherStudent":
        """A random task; the defaults are the sizes of arXiv 2301.08203.

        Args:
            seed: of NumPy's generator.
            rows: n.
            inputs: d; features are N(0, 1/d).
            width: h; the teacher's weights are N(0, 1/h).
            offset: the standard deviation of b, normal with mean 0.
            activation: the teacher's.
            regularization: r.

        Raises:
            InputError: an argument out of its range.
        """
        n, d, h = (
            _checks.at_least(name, value, 1)
            for name, value in (("rows", rows), ("inputs", inputs), ("width", width))
        )
        _checks.nonnegative("offset", offset)
        rng = np.random.default_rng(_checks.at_least("seed", seed, 0))
        features = rng.normal(size=(n, d)) / np.sqrt(d)
        teacher = Layers(*(rng.normal(size=shape) / np.sqrt(h) for shape in ((d, h), (h,))))
        return cls(features, teacher, offset * rng.normal(), activation, regularization)

    def loss(self, x: Layers) -> Scalar:
        """(1/n) Σⱼ (s(aⱼᵀ W) w - yⱼ)² + r |x|²."""
        check_layers(x, self.teacher.first.shape, self.teacher.second.shape)
        W, w = x
        residual = jax.nn.sigmoid(self.features @ W) @ w - self.labels
        return jnp.mean(residual**2) + self.regularization * square(x)

    def initial(self, seed: int = 0) -> Layers:
        """A random start, every weight N(0, 1/h)."""
        d, h = self.teacher.first.shape
        return normal_layers(seed, (d, h), (h,), h)
