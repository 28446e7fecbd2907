"""Any chain with a mean map, and any SDE, about a fixed point."""

from jaxsde.analysis.linearization._linearize import Linearization as Linearization
from jaxsde.analysis.linearization._linearize import linearize as linearize
