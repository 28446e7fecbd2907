"""What is read off ensembles."""

from jaxsde.analysis.compare import Comparison as Comparison
from jaxsde.analysis.compare import Difference as Difference
from jaxsde.analysis.compare import compare as compare
from jaxsde.analysis.compare import with_error as with_error
from jaxsde.analysis.first_passage import Curve as Curve
from jaxsde.analysis.first_passage import FirstPassageTimes as FirstPassageTimes
from jaxsde.analysis.first_passage import first_passage as first_passage
from jaxsde.analysis.stationarity import Density as Density
from jaxsde.analysis.stationarity import Distance as Distance
from jaxsde.analysis.stationarity import Distances as Distances
from jaxsde.analysis.stationarity import Histogram as Histogram
from jaxsde.analysis.stationarity import LawMoments as LawMoments
from jaxsde.analysis.stationarity import Stationary as Stationary
from jaxsde.analysis.stationarity import Tail as Tail
from jaxsde.analysis.stationarity import distances as distances
from jaxsde.analysis.stationarity import stationarity as stationarity
from jaxsde.analysis.stationarity import stationary as stationary
from jaxsde.analysis.stationarity import tail_index as tail_index
from jaxsde.analysis.sweeps import NoiseResilience as NoiseResilience
from jaxsde.analysis.sweeps import noise_resilience as noise_resilience
from jaxsde.analysis.sweeps import sweep as sweep
from jaxsde.analysis.weak_error import ObservableError as ObservableError
from jaxsde.analysis.weak_error import Order as Order
from jaxsde.analysis.weak_error import WeakError as WeakError
from jaxsde.analysis.weak_error import fit_order as fit_order
from jaxsde.analysis.weak_error import weak_error as weak_error
