"""Optimizers that optax lacks, as optax transformations; for the others take optax's own."""

from jaxsde.optimizers.adaptive import adam as adam
from jaxsde.optimizers.adaptive import rmsprop as rmsprop
