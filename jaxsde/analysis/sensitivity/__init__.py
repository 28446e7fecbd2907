"""Derivatives with respect to hyperparameters, along paths and of stationary laws."""

from jaxsde.analysis.sensitivity._pathwise import Sensitivity as Sensitivity
from jaxsde.analysis.sensitivity._pathwise import sensitivity as sensitivity
from jaxsde.analysis.sensitivity._stationary import StationarySensitivity as StationarySensitivity
from jaxsde.analysis.sensitivity._stationary import stationary_sensitivity as stationary_sensitivity
