"""Processes: an optimizer on an oracle, an SDE under a scheme, and the two driven by one noise."""

from jaxsde.processes._first_passage import FirstPassage as FirstPassage
from jaxsde.processes._first_passage import Passage as Passage
from jaxsde.processes._first_passage import PassageState as PassageState
from jaxsde.processes._optimizer import OptimizerProcess as OptimizerProcess
from jaxsde.processes._optimizer import OptimizerState as OptimizerState
from jaxsde.processes._paired import OnSide as OnSide
from jaxsde.processes._paired import Paired as Paired
from jaxsde.processes._paired import PairedDraw as PairedDraw
from jaxsde.processes._paired import Sides as Sides
from jaxsde.processes._paired import Unit as Unit
from jaxsde.processes._refined import Levels as Levels
from jaxsde.processes._refined import Refined as Refined
from jaxsde.processes._sde import SDEProcess as SDEProcess
