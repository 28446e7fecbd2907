"""Closed forms, bounds and exact laws: what simulations are compared with.

`gradient_descent`, `sign`, `adaptive`, `distributed`, `sharpness` and `minimax` hold one optimizer
family each, `backward_equation` expectations under any one-dimensional SDE, `transfer_operator`
those of chains and SDEs in up to three dimensions, `scaling` how hyperparameters follow the batch
size, the number of agents and compression. A law comes as `discrete` (the algorithm), `em(dt)` (the
SDE's Euler-Maruyama chain) or `sde`.
"""

from jaxsde.theory import adaptive as adaptive
from jaxsde.theory import backward_equation as backward_equation
from jaxsde.theory import distributed as distributed
from jaxsde.theory import gradient_descent as gradient_descent
from jaxsde.theory import minimax as minimax
from jaxsde.theory import scaling as scaling
from jaxsde.theory import sharpness as sharpness
from jaxsde.theory import sign as sign
from jaxsde.theory import transfer_operator as transfer_operator
from jaxsde.theory._laws import Law as Law
from jaxsde.theory._laws import Moments as Moments
from jaxsde.theory._laws import discrete as discrete
from jaxsde.theory._laws import em as em
from jaxsde.theory._laws import expected_loss as expected_loss
from jaxsde.theory._laws import sde as sde
