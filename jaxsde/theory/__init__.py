"""Closed forms, bounds and exact laws: what simulations are compared with.

`gradient_descent` and `sign` hold one optimizer family each, `backward_equation` expectations
under any one-dimensional SDE. A law comes as `discrete` (the algorithm), `em(dt)` (the SDE's
Euler-Maruyama chain) or `sde`.
"""

from jaxsde.theory import backward_equation as backward_equation
from jaxsde.theory import gradient_descent as gradient_descent
from jaxsde.theory import sign as sign
from jaxsde.theory._laws import Law as Law
from jaxsde.theory._laws import Moments as Moments
from jaxsde.theory._laws import discrete as discrete
from jaxsde.theory._laws import em as em
from jaxsde.theory._laws import expected_loss as expected_loss
from jaxsde.theory._laws import sde as sde
