"""Hyperparameter grids in one compiled program, and the study of noise resilience made of them."""

from jaxsde.analysis.sweeps._noise_resilience import NoiseResilience as NoiseResilience
from jaxsde.analysis.sweeps._noise_resilience import noise_resilience as noise_resilience
from jaxsde.analysis.sweeps._sweep import sweep as sweep
