"""Does this SDE describe this optimizer? Ensembles of both, with error bars, in JAX."""

from jaxsde import analysis as analysis
from jaxsde import engine as engine
from jaxsde import optimizers as optimizers
from jaxsde import oracles as oracles
from jaxsde import problems as problems
from jaxsde import sdes as sdes
from jaxsde import theory as theory
from jaxsde._checks import InputError as InputError
from jaxsde.analysis import compare as compare
from jaxsde.analysis import first_passage as first_passage
from jaxsde.engine import Draw as Draw
from jaxsde.engine import Ensemble as Ensemble
from jaxsde.engine import EulerMaruyama as EulerMaruyama
from jaxsde.engine import Progress as Progress
from jaxsde.engine import RandomStart as RandomStart
from jaxsde.engine import SimplifiedWeakEuler as SimplifiedWeakEuler
from jaxsde.engine import clipped as clipped
from jaxsde.engine import load as load
from jaxsde.engine import of_state as of_state
from jaxsde.engine import simulate as simulate
from jaxsde.engine import use_all_cores as use_all_cores
from jaxsde.engine import with_covariance as with_covariance
from jaxsde.processes import FirstPassage as FirstPassage
from jaxsde.processes import OptimizerProcess as OptimizerProcess
from jaxsde.processes import Paired as Paired
from jaxsde.processes import SDEProcess as SDEProcess
