"""`simulate`, and loops as one writes them by hand: `run(steps, seed)` gives the moments of f."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxsde
from benchmarks.agents.cases import AGENTS, HESSIAN, LEARNING_RATE, SCALE, D
from benchmarks.throughput.peers import moments

ENGINES = {
    "jaxsde": "simulate(records=1), use_all_cores()",
    "words": "the same of a process that adds up the optimizer's draws",
    "sde": "the same of the optimizer's SDE",
    "jax": "jit, scan, jax.random.normal and uniform; state (paths, d), vmap over agents",
    "pytorch": "arrays (agents, paths, d), in-place operations, no_grad, all threads",
}
HAND_WRITTEN = ("jax", "pytorch")


def with_jaxsde(process: Any, paths: int) -> Callable:
    """`simulate` of a process, its loss recorded at the end."""

    def run(steps, seed):
        ensemble = jaxsde.simulate(
            process, jnp.ones(D, jnp.float32), steps=steps, paths=paths, key=jax.random.key(seed),
            records=1,
        )  # fmt: skip
        return float(ensemble.mean("loss")[-1]), float(ensemble.variance("loss")[-1])

    return run


def with_jax(kept: int | None, paths: int) -> Callable:
    """DSGD, or DCSGD with rand-k, as one writes it."""
    h = HESSIAN[None, :]

    def message(x, scale, key):
        of_noise, of_mask = jax.random.split(key)
        g = h * x + scale * jax.random.normal(of_noise, x.shape)
        if kept is None:
            return g
        u = jax.random.uniform(of_mask, x.shape)
        rank = jnp.sum(u[:, None, :] < u[:, :, None], axis=2)  # many times as fast as a sort
        return jnp.where(rank < kept, D / kept * g, 0)

    def step(x, key):
        messages = jax.vmap(message, (None, 0, 0))(x, SCALE, jax.random.split(key, AGENTS))
        return x - LEARNING_RATE * jnp.mean(messages, axis=0), None

    @jax.jit
    def loss(keys):
        x = jax.lax.scan(step, jnp.ones((paths, D), jnp.float32), keys)[0]
        return jnp.sum(h * x**2, axis=1) / 2

    return lambda steps, seed: moments(loss(jax.random.split(jax.random.key(seed), steps)))


def with_pytorch(kept: int | None, paths: int) -> Callable:
    """The same in PyTorch."""
    import torch

    h, scale = torch.from_numpy(HESSIAN), torch.from_numpy(SCALE)[:, None, None]
    g, u = torch.empty(AGENTS, paths, D), torch.empty(AGENTS, paths, D)

    @torch.no_grad()
    def run(steps, seed):
        torch.manual_seed(seed)
        x = torch.ones(paths, D)
        for _ in range(steps):
            g.normal_().mul_(scale).add_(h * x)
            if kept is not None:
                dropped = u.uniform_().topk(D - kept, dim=-1, sorted=False).indices
                g.scatter_(-1, dropped, 0).mul_(D / kept)
            x.sub_(g.mean(0), alpha=LEARNING_RATE)
        return moments((h * x**2).sum(1) / 2)

    return run
