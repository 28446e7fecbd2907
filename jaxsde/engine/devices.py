"""The devices that share an ensemble's paths."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

# Noise is integer arithmetic, which keeps 512-bit units as busy as 256-bit ones; XLA's default is
# 256. Without such units it changes nothing.
CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


def use_all_cores() -> None:
    """Gives JAX one CPU device a core; call it before JAX computes anything.

    XLA runs elementwise CPU kernels on one core a device, so an ensemble is as fast as there are
    devices. When the backend was already started with a single device, this warns and changes
    nothing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        jax.config.update("jax_num_cpu_devices", cores or 1)
    except RuntimeError:
        if jax.default_backend() == "cpu" and jax.device_count() == 1 and (cores or 1) > 1:
            warnings.warn(
                f"JAX was already started with one CPU device, so {cores} cores stay unused: call "
                "jaxsde.use_all_cores() before anything that computes",
                stacklevel=2,
            )


def paths_mesh(devices: Sequence[Any] | None) -> jax.sharding.Mesh:
    """A one-dimensional mesh over the devices (all of them by default), its axis called `paths`."""
    return jax.sharding.Mesh(np.asarray(jax.devices() if devices is None else devices), ("paths",))
