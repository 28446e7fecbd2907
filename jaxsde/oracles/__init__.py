"""Noisy gradients of a problem: draws, the gradient of one draw, its covariance and law."""

from jaxsde.oracles._oracle import Oracle as Oracle
from jaxsde.oracles.agents import Agents as Agents
from jaxsde.oracles.agents import AgentsDraw as AgentsDraw
from jaxsde.oracles.compressors import QSGD as QSGD
from jaxsde.oracles.compressors import BernoulliK as BernoulliK
from jaxsde.oracles.compressors import Compressor as Compressor
from jaxsde.oracles.compressors import Identity as Identity
from jaxsde.oracles.compressors import RandomK as RandomK
from jaxsde.oracles.compressors import Sign as Sign
from jaxsde.oracles.compressors import Ternary as Ternary
from jaxsde.oracles.compressors import Unbiased as Unbiased
from jaxsde.oracles.full_batch import FullBatch as FullBatch
from jaxsde.oracles.gaussian import GaussianNoise as GaussianNoise
from jaxsde.oracles.minibatch import MinibatchNoise as MinibatchNoise
from jaxsde.oracles.multiplicative import MultiplicativeNoise as MultiplicativeNoise
from jaxsde.oracles.student_t import StudentTNoise as StudentTNoise
from jaxsde.oracles.svag import SVAG as SVAG
