"""One table of what can be compared: optimizer, SDE, the laws they should follow, defaults."""

from jaxsde import _checks
from jaxsde.families import (
    adaptive,
    distributed,
    gradient_descent,
    minimax,
    sharpness,
    sign,
)
from jaxsde.families._family import Family as Family
from jaxsde.families._family import Laws as Laws
from jaxsde.families._family import Setting as Setting

FAMILIES = {
    **gradient_descent.ROWS, **sign.ROWS, **adaptive.ROWS, **distributed.ROWS, **sharpness.ROWS,
    **minimax.ROWS,
}  # fmt: skip


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    _checks.known("optimizer", name, FAMILIES)
    return FAMILIES[name]
