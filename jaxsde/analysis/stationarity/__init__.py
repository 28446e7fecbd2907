"""Has a chain reached its stationary law, what is that law, and how far is it from another?"""

from jaxsde.analysis.stationarity._densities import Density as Density
from jaxsde.analysis.stationarity._densities import Histogram as Histogram
from jaxsde.analysis.stationarity._distances import Distance as Distance
from jaxsde.analysis.stationarity._distances import Distances as Distances
from jaxsde.analysis.stationarity._distances import distances as distances
from jaxsde.analysis.stationarity._stationary import LawMoments as LawMoments
from jaxsde.analysis.stationarity._stationary import Stationary as Stationary
from jaxsde.analysis.stationarity._stationary import stationarity as stationarity
from jaxsde.analysis.stationarity._stationary import stationary as stationary
from jaxsde.analysis.stationarity._tails import Tail as Tail
from jaxsde.analysis.stationarity._tails import tail_index as tail_index
