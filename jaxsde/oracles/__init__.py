"""Noisy gradients of a problem: draws, the gradient of one draw, its covariance and law."""

from jaxsde.oracles._oracle import Oracle as Oracle
from jaxsde.oracles.gaussian import GaussianNoise as GaussianNoise
from jaxsde.oracles.student_t import StudentTNoise as StudentTNoise
from jaxsde.oracles.svag import SVAG as SVAG
