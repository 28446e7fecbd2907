"""Optimizers that optax lacks, as optax transformations; for the others take optax's own."""

from jaxsde.optimizers.adaptive import adam as adam
from jaxsde.optimizers.adaptive import rmsprop as rmsprop
from jaxsde.optimizers.distributed import average_gradients as average_gradients
from jaxsde.optimizers.distributed import average_messages as average_messages
from jaxsde.optimizers.distributed import average_signs as average_signs
from jaxsde.optimizers.distributed import dcsgd as dcsgd
from jaxsde.optimizers.distributed import dsgd as dsgd
from jaxsde.optimizers.distributed import dsign_sgd as dsign_sgd
