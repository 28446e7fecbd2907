"""What the machine could do, in a process of its own: `... machine [--quick]` prints one JSON line.

Copy bandwidth, and the engine's cipher alone, which is the integer rate; all devices together.
"""

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxsde
from jaxsde.engine import noise

CHAIN = 4  # ciphers one after the other between a load and a store
CIPHER = 20 * 5 + 5 * 3 + 2  # operations: add, xor, two shifts, or; key injections


def main(quick: bool) -> None:
    """Measures and prints."""
    jaxsde.use_all_cores()
    devices = jax.devices()
    mesh = Mesh(np.asarray(devices), ("paths",))
    cpu = devices[0].platform == "cpu"
    copied = copy_bandwidth(mesh, (2**22 if quick else 2**26) if cpu else 2**28)
    words = cipher_words(mesh, 2**13 if cpu else 2**24, 64 if quick else 1024)
    row = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "copy_bytes_per_second": copied,
        "cipher_words_per_second": words,
        "integer_operations_per_second": words * CIPHER / 2,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "flags": _flags(),
    }
    print(json.dumps(row))


def seconds_of(run: Callable[[], Any], repeats: int = 5) -> float:
    """The median of seconds, warm."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def copy_bandwidth(mesh: Any, size: int) -> float:
    """Bytes read and written a second where `size` floats are read once and written once."""
    over_devices = NamedSharding(mesh, PartitionSpec("paths"))
    values = jax.device_put(np.ones(size - size % mesh.size, np.float32), over_devices)
    pass_over = jax.jit(lambda values: values + 1, donate_argnums=0)

    def run():
        nonlocal values
        values = pass_over(values)
        return values

    return 2 * values.nbytes / seconds_of(run)


def cipher_words(mesh: Any, lanes: int, rounds: int) -> float:
    """Words a second of the engine's cipher, unrolled, on counters that stay in registers."""

    def of_device(key):
        lane = jnp.arange(lanes, dtype=jnp.uint32)

        def encrypt(_, word):  # one array: XLA's CPU kernels have one output each
            block = word, lane
            for _ in range(CHAIN):
                block = noise.threefry((key[0], key[1]), block)
            return block[0] ^ block[1]

        return jax.lax.fori_loop(0, rounds, encrypt, lane)

    specs = {"in_specs": PartitionSpec(), "out_specs": PartitionSpec("paths")}
    on_all = jax.jit(jax.shard_map(of_device, mesh=mesh, check_vma=False, **specs))
    key = jnp.asarray([1, 2], jnp.uint32)
    return 2 * lanes * CHAIN * rounds * mesh.size / seconds_of(lambda: on_all(key))


def _flags() -> dict[str, str]:
    """What the environment sets for XLA and JAX, without the places it names."""
    flags = {}
    for name, value in sorted(os.environ.items()):
        words = [word for word in value.split() if "/" not in word]
        if name.startswith(("JAX_", "XLA_", "OMP_")) and words:
            flags[name] = " ".join(words)
    return flags


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main("--quick" in sys.argv)
