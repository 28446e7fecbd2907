"""Paths through time: counter-based noise, schemes, the loop, statistics, ensembles."""

from jaxsde.engine.devices import CPU_OPTIONS as CPU_OPTIONS
from jaxsde.engine.devices import use_all_cores as use_all_cores
from jaxsde.engine.ensemble import Ensemble as Ensemble
from jaxsde.engine.ensemble import Quantile as Quantile
from jaxsde.engine.ensemble import load as load
from jaxsde.engine.evolve import Process as Process
from jaxsde.engine.evolve import RandomStart as RandomStart
from jaxsde.engine.evolve import Record as Record
from jaxsde.engine.evolve import evolve as evolve
from jaxsde.engine.evolve import start as start
from jaxsde.engine.noise import Draw as Draw
from jaxsde.engine.noise import Index as Index
from jaxsde.engine.noise import Normal as Normal
from jaxsde.engine.noise import Rademacher as Rademacher
from jaxsde.engine.noise import StudentT as StudentT
from jaxsde.engine.noise import Uniform as Uniform
from jaxsde.engine.observables import Observable as Observable
from jaxsde.engine.observables import of_state as of_state
from jaxsde.engine.observables import with_covariance as with_covariance
from jaxsde.engine.schemes import EulerMaruyama as EulerMaruyama
from jaxsde.engine.schemes import Scheme as Scheme
from jaxsde.engine.schemes import SimplifiedWeakEuler as SimplifiedWeakEuler
from jaxsde.engine.simulate import Progress as Progress
from jaxsde.engine.simulate import simulate as simulate
from jaxsde.engine.statistics import Moments as Moments
