"""Scaling rules: how hyperparameters change together so that the SDE, or its loss level, stays.

A record of hyperparameters is a mapping with some of the keys learning_rate, b1, b2, decay, eps,
weight_decay, l2_regularization, batch_size (of each agent), agents and omega (the variance of
compression), plain numbers all. A rule returns a new record with the same keys; `compression` adds
omega. l2_regularization belongs to the loss, and no rule changes it.

Rules compose, rule(rule(hp, a), b) = rule(hp, a b), and invert, rule(rule(hp, a), 1/a) = hp, to
rounding; `compression` composes as compression(compression(hp, a), b) = compression(hp, b). A
batch_size or a number of agents need not be whole: below 1 a batch is synthetic, as SVAG makes it.
"""

from jaxsde.theory.scaling._batch import Scaled as Scaled
from jaxsde.theory.scaling._batch import bound_preserving as bound_preserving
from jaxsde.theory.scaling._batch import from_scaled as from_scaled
from jaxsde.theory.scaling._batch import linear as linear
from jaxsde.theory.scaling._batch import square_root as square_root
from jaxsde.theory.scaling._batch import svag as svag
from jaxsde.theory.scaling._batch import to_scaled as to_scaled
from jaxsde.theory.scaling._distributed import agents_linear as agents_linear
from jaxsde.theory.scaling._distributed import compression as compression
from jaxsde.theory.scaling._distributed import sign_batch as sign_batch
from jaxsde.theory.scaling._records import Hyperparameters as Hyperparameters
from jaxsde.theory.scaling._records import Rule as Rule
