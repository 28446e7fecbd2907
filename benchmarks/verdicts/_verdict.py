"""What a family module states: published formulas, each at the settings of a fixed grid."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from jaxsde.engine import Estimate

KINDS = ("equality", "upper bound", "lower bound")


class Case(NamedTuple):
    """One formula at one setting of the fixed grid.

    Attributes:
        setting: the numbers, "η λ/σ = 0.2, Gaussian".
        published: the formula as printed; not finite where it does not exist.
        exact: the law of what the formula is about, the algorithm or the SDE, by recursion,
            lattice, enumeration or quadrature; None where none is known.
        corrected: the corrected form; None where the published one needs none.
        simulate: from a key to the simulated value and its standard error. It is of the same thing
            as `exact`, and checked against it.
        inside: whether the setting lies where the formula is said to hold.
        small: the parameter that the formula is an expansion in, for the slope of its error. List
            a sweep from large to small: a new sweep begins where it does not fall.
    """

    setting: str
    published: float
    exact: float | None
    corrected: float | None = None
    simulate: Callable[[jax.Array], Estimate] | None = None
    inside: bool = True
    small: float | None = None


class Formula(NamedTuple):
    """A published formula and its cases.

    Attributes:
        name: "stationary covariance of SignSGD".
        source: "Compagnoni et al. 2025, Lemma 3.7".
        printed: the formula as printed, in unicode or Markdown.
        kind: "equality", "upper bound" or "lower bound".
        holds: where it holds, in words.
        correction: the corrected form in symbols, "" if none is needed.
        cases: makes the cases; nothing is simulated before a case's own `simulate`.
        order: the power of `small` that the error of the published form is said to have.
        corrected_order: that of the corrected form.
    """

    name: str
    source: str
    printed: str
    kind: str
    holds: str
    correction: str
    cases: Callable[[], Sequence[Case]]
    order: float | None = None
    corrected_order: float | None = None
