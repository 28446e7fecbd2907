"""Optimizers that optax lacks, as optax transformations; for the others take optax's own."""

from jaxsde.optimizers.adaptive import adam as adam
from jaxsde.optimizers.adaptive import rmsprop as rmsprop
from jaxsde.optimizers.distributed import average_gradients as average_gradients
from jaxsde.optimizers.distributed import average_messages as average_messages
from jaxsde.optimizers.distributed import average_signs as average_signs
from jaxsde.optimizers.distributed import dcsgd as dcsgd
from jaxsde.optimizers.distributed import dsgd as dsgd
from jaxsde.optimizers.distributed import dsign_sgd as dsign_sgd
from jaxsde.optimizers.minimax import extragradient as extragradient
from jaxsde.optimizers.minimax import hamiltonian as hamiltonian
from jaxsde.optimizers.minimax import seg as seg
from jaxsde.optimizers.minimax import sgda as sgda
from jaxsde.optimizers.minimax import shgd as shgd
from jaxsde.optimizers.sharpness import dnsam as dnsam
from jaxsde.optimizers.sharpness import sam as sam
from jaxsde.optimizers.sharpness import sharpness_aware as sharpness_aware
from jaxsde.optimizers.sharpness import usam as usam
