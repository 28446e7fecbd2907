"""The SDEs of optimizers: drift, diffusion, initial state; each gives diffrax terms."""

from jaxsde.sdes._sde import SDE as SDE
from jaxsde.sdes._sde import State as State
from jaxsde.sdes.adaptive import Adam as Adam
from jaxsde.sdes.adaptive import BatchEquivalentAdam as BatchEquivalentAdam
from jaxsde.sdes.adaptive import BatchEquivalentRMSprop as BatchEquivalentRMSprop
from jaxsde.sdes.adaptive import RMSprop as RMSprop
from jaxsde.sdes.distributed import DCSGD as DCSGD
from jaxsde.sdes.distributed import DSGD as DSGD
from jaxsde.sdes.distributed import DSignSGD as DSignSGD
from jaxsde.sdes.distributed import LinearizedDSignSGD as LinearizedDSignSGD
from jaxsde.sdes.distributed import MajorityVote as MajorityVote
from jaxsde.sdes.from_diffrax import FromDiffrax as FromDiffrax
from jaxsde.sdes.from_diffrax import from_diffrax as from_diffrax
from jaxsde.sdes.gradient_descent import SGD as SGD
from jaxsde.sdes.gradient_descent import HeavyBall as HeavyBall
from jaxsde.sdes.gradient_descent import Nesterov as Nesterov
from jaxsde.sdes.minimax import SEG as SEG
from jaxsde.sdes.minimax import SGDA as SGDA
from jaxsde.sdes.minimax import SHGD as SHGD
from jaxsde.sdes.modified_equation import ModifiedEquation as ModifiedEquation
from jaxsde.sdes.modified_equation import modified_equation as modified_equation
from jaxsde.sdes.sharpness import DNSAM as DNSAM
from jaxsde.sdes.sharpness import SAM as SAM
from jaxsde.sdes.sharpness import USAM as USAM
from jaxsde.sdes.sign import LinearizedSignSGD as LinearizedSignSGD
from jaxsde.sdes.sign import SignSGD as SignSGD
