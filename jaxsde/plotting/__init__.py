"""Figures: matplotlib axes in, matplotlib axes out; `save` writes a file whole or not at all."""

from jaxsde.plotting._noise_resilience import noise_resilience as noise_resilience
from jaxsde.plotting._stationary import stationary as stationary
from jaxsde.plotting._style import LAW as LAW
from jaxsde.plotting._style import OPTIMIZER as OPTIMIZER
from jaxsde.plotting._style import SDE as SDE
from jaxsde.plotting._style import save as save
from jaxsde.plotting._sweep import sweep as sweep
from jaxsde.plotting._track import difference as difference
from jaxsde.plotting._track import expected as expected
from jaxsde.plotting._track import final_law as final_law
from jaxsde.plotting._track import track as track
from jaxsde.plotting._training import Tracked as Tracked
from jaxsde.plotting._training import others as others
from jaxsde.plotting._training import training as training
from jaxsde.plotting._weak_error import weak_error as weak_error
