"""How far an SDE's expectations are from an optimizer's, and at which order in the step."""

from jaxsde.analysis.weak_error._order import Order as Order
from jaxsde.analysis.weak_error._order import fit_order as fit_order
from jaxsde.analysis.weak_error._result import ObservableError as ObservableError
from jaxsde.analysis.weak_error._result import WeakError as WeakError
from jaxsde.analysis.weak_error._study import weak_error as weak_error
