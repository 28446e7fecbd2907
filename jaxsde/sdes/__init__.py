"""The SDEs of optimizers: drift, diffusion, initial state; each gives diffrax terms."""

from jaxsde.sdes._sde import SDE as SDE
from jaxsde.sdes._sde import State as State
from jaxsde.sdes.from_diffrax import FromDiffrax as FromDiffrax
from jaxsde.sdes.from_diffrax import from_diffrax as from_diffrax
from jaxsde.sdes.gradient_descent import SGD as SGD
from jaxsde.sdes.sign import LinearizedSignSGD as LinearizedSignSGD
from jaxsde.sdes.sign import SignSGD as SignSGD
