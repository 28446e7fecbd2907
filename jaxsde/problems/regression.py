"""Regressions on data."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import check_shape
from jaxsde.problems.finite_sum import Supervised


class LogisticRegression(Supervised):
    """f(x) = (1/n) Σⱼ log(1 + exp(-(2yⱼ - 1) aⱼᵀx)) + (r/2) |x|², a finite sum over rows.

    Args:
        features: A, rows aⱼ, `(n, d)`.
        labels: y, zeros and ones, `(n,)`.
        regularization: r >= 0; with r > 0 the minimiser exists even for separable data.

    Raises:
        InputError: shapes do not match, labels other than 0 and 1, or r < 0.
    """

    regularization: Float[Array, ""]

    def __init__(self, features, labels, regularization: ArrayLike = 0.0):
        self.features, self.labels = two_classes(features, labels)
        self.regularization = penalty(regularization)

    def loss(self, x: Float[Array, " d"]) -> Scalar:
        """Mean cross-entropy plus (r/2) |x|²; softplus(z) - y z is -log p(y) at logit z = Ax."""
        check_shape(x, self.features.shape[1:])
        z = self.features @ x
        cross_entropy = jnp.mean(jax.nn.softplus(z) - self.labels * z)
        return cross_entropy + self.regularization / 2 * jnp.sum(x**2)

    def gradient(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Aᵀ (sigmoid(Ax) - y) / n + r x."""
        check_shape(x, self.features.shape[1:])
        z = self.features @ x
        residual = jax.nn.sigmoid(z) - self.labels
        return self.features.T @ residual / self.labels.size + self.regularization * x

    def hessian(self, x: Float[Array, " d"]) -> Float[Array, "d d"]:
        """Aᵀ diag(p (1 - p)) A / n + r I at p = sigmoid(Ax)."""
        p = jax.nn.sigmoid(self.features @ x)
        weighted = self.features * (p * (1 - p))[:, None]
        identity = jnp.eye(x.size, dtype=weighted.dtype)
        return self.features.T @ weighted / self.labels.size + self.regularization * identity

    def split(self, parts: int) -> "list[LogisticRegression]":
        """The data dealt out to several holders like cards: rows j, j + parts, ... to holder j.

        Holders get ⌊n/parts⌋ rows each; the last n mod parts rows are left out.

        Raises:
            InputError: parts below 1 or above n.
        """
        parts = _checks.at_least("parts", parts, 1)
        rows = self.labels.size // parts
        if rows == 0:
            raise _checks.InputError(f"{self.labels.size} rows cannot be split into {parts} parts")
        dealt = [slice(j, rows * parts, parts) for j in range(parts)]
        return [
            LogisticRegression(self.features[own], self.labels[own], self.regularization)
            for own in dealt
        ]

    def minimizer(self) -> Float[Array, " d"]:
        """x*, by Newton's method with halved steps; needs r > 0.

        Raises:
            InputError: r = 0, where separable data have no minimiser.
        """
        if self.regularization <= 0:
            raise _checks.InputError("a minimizer is sure to exist only for regularization > 0")

        def newton(x, _):
            step = jnp.linalg.solve(self.hessian(x), self.gradient(x))
            halvings = 0.5 ** jnp.arange(16, dtype=x.dtype)
            losses = jax.vmap(lambda h: self.loss(x - h * step))(halvings)
            return x - halvings[jnp.argmin(losses)] * step, None

        x0 = jnp.zeros(self.features.shape[1], self.features.dtype)
        return jax.lax.scan(newton, x0, length=30)[0]


def breast_cancer(regularization=0.01) -> LogisticRegression:
    """Logistic regression on the Wisconsin breast cancer data that scikit-learn ships.

    569 tumours, 30 features standardised to mean 0 and variance 1, and a constant: d = 31.
    The classes are nearly separable, so the default r = 0.01 keeps the minimiser at a finite place.

    Raises:
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    features, labels = breast_cancer_data()
    features = np.column_stack([features, np.ones(len(features))])
    return LogisticRegression(features, labels, regularization)


def breast_cancer_data() -> tuple[Float[np.ndarray, "569 30"], Int[np.ndarray, " 569"]]:
    """The features, standardised to mean 0 and variance 1, and the labels."""
    datasets = _checks.extra("sklearn.datasets", "data")
    features, labels = datasets.load_breast_cancer(return_X_y=True)
    return (features - features.mean(0)) / features.std(0), labels


def two_classes(features, labels) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Features and labels 0 or 1 as arrays of floats; refuses others."""
    features = jnp.asarray(features, float)
    labels = jnp.asarray(labels, float)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise _checks.InputError(
            f"features must be (n, d) and labels (n,), got {features.shape} and {labels.shape}"
        )
    _checks.finite("features", features)
    known = _checks.concrete(labels)
    if known is not None and not np.all((known == 0) | (known == 1)):
        raise _checks.InputError("labels must be zeros and ones")
    return features, labels


def penalty(regularization: ArrayLike) -> Float[Array, ""]:
    """The weight of a penalty as an array; refuses a negative one."""
    weight = _checks.concrete(regularization)
    if weight is not None and not (np.isfinite(weight) and weight >= 0):
        raise _checks.InputError(f"regularization must be at least 0, got {weight}")
    return jnp.asarray(regularization, float)
