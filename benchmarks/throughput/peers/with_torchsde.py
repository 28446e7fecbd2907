"""torchsde: `sdeint` with the Euler method and drift and diffusion computed together."""

import math
from collections.abc import Callable

import torch
import torchsde

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import moments
from benchmarks.throughput.peers.with_pytorch import DEVICE
from benchmarks.throughput.peers.with_pytorch import device as device

PACKAGES = ("torchsde", "torch", "numpy")


def build(case: Case, variant: str) -> Callable | None:
    """`sdeint` over a state (paths, d)."""
    if case.equation not in _SDES:
        return None
    sde = _SDES[case.equation](case)

    @torch.no_grad()
    def run(steps, seed):
        brownian = torchsde.BrownianInterval(
            0.0, steps * case.dt, (case.paths, case.motions * case.d), torch.float32, DEVICE,
            entropy=seed, dt=case.dt,
        )  # fmt: skip
        times = torch.tensor([0.0, steps * case.dt], device=DEVICE)
        x0 = torch.from_numpy(case.x0).to(DEVICE).repeat(case.paths, 1)
        y = torchsde.sdeint(sde, sde.start(x0), times, brownian, "euler", case.dt)[-1]
        return moments(sde.loss(y).cpu())

    return run


class _SDE(torch.nn.Module):
    """torchsde wants a module; products with dW spare it d × d diffusions."""

    noise_type, sde_type = "general", "ito"

    def __init__(self, case: Case):
        super().__init__()
        self.p, self.eta = case.parameters, case.dt
        for name in ("h", "mu", "s", "H", "root", "squares_root", "variance", "gain"):
            if hasattr(self.p, name):
                setattr(self, name, torch.from_numpy(getattr(self.p, name)).to(DEVICE))

    def start(self, x):
        return x

    def loss(self, x):
        return (self.h * x**2).sum(1) / 2


class _Sign(_SDE):
    noise_type = "diagonal"

    def f_and_g(self, t, x):
        mean = torch.erf(self.h * x / (self.p.sigma * math.sqrt(2)))
        return -mean, math.sqrt(self.eta) * torch.sqrt(1 - mean**2)


class _GeometricBrownianMotion(_SDE):
    noise_type = "diagonal"

    def f_and_g(self, t, x):
        return self.mu * x, self.s * x

    def loss(self, x):
        return x.sum(1)


class _Dense(_SDE):
    def f_and_g_prod(self, t, x, dW):
        return -(x @ self.H), math.sqrt(self.eta) * dW @ self.root.T

    def loss(self, x):
        return (x * _product(self.H, x)).sum(1) / 2


class _USAM(_Dense):
    def __init__(self, case: Case):
        super().__init__(case)
        self.slope, self.noise = self.gain @ self.H, math.sqrt(self.eta) * self.p.sigma * self.gain

    def f_and_g_prod(self, t, x, dW):
        return -(x @ self.slope.T), -(dW @ self.noise)


class _DNSAM(_Dense):
    def f_and_g_prod(self, t, x, dW):
        g, noise = x @ self.H, math.sqrt(self.eta) * self.p.sigma * dW
        weight = self.p.rho / torch.linalg.vector_norm(g, dim=1, keepdim=True)
        return -(g + weight * (g @ self.H)), -(noise + weight * (noise @ self.H))


def _product(A, x):
    return A * x if A.ndim == 1 else x @ A.T


class _RMSprop(_Dense):
    """The state is (X, V) in one row."""

    def start(self, x):
        return torch.cat([x, _product(self.H, x) ** 2 + self.variance], 1)

    def f_and_g_prod(self, t, y, dW):
        X, V = y.chunk(2, 1)
        g, P = _product(self.H, X), V.sqrt().add_(self.p.eps)
        noise = _product(self.root, dW).mul_(-math.sqrt(self.eta)).div_(P)
        drift = torch.cat([(g / P).neg_(), self.p.rho * (g**2 + self.variance - V)], 1)
        return drift, torch.cat([noise, torch.zeros_like(V)], 1)

    def loss(self, y):
        return super().loss(y.chunk(2, 1)[0])


class _RMSpropOrder2(_RMSprop):
    def f_and_g_prod(self, t, y, dW):
        eta, rho, (X, V), (W, B) = self.eta, self.p.rho, y.chunk(2, 1), dW.chunk(2, 1)
        g, root = _product(self.H, X), torch.maximum(V, eta * rho * self.variance).sqrt_()
        P, away = root + self.p.eps, g**2 + self.variance - V
        step = g / P
        curved = eta * _product(self.H, step)
        dX = torch.add(g, curved, alpha=0.5).addcmul_(step, away / root, value=eta * rho / 4)
        dV = away.mul_(1 + eta * rho / 2).addcmul_(g, curved)
        RW, QB = _product(self.root, W), _product(self.squares_root, B)
        root_eta = math.sqrt(eta)
        noise = [(RW / P).mul_(-root_eta), QB.addcmul_(g, RW, value=2).mul_(root_eta * rho)]
        return torch.cat([(dX / P).neg_(), dV.mul_(rho)], 1), torch.cat(noise, 1)


class _AdamW(_SDE):
    """The state is (X, M, V) in one row."""

    def __init__(self, case: Case):
        super().__init__(case)
        self.rho1, self.rho2 = (1 - self.p.b1) / self.eta, (1 - self.p.b2) / self.eta

    def start(self, x):
        V = ((self.h * x) ** 2 + self.p.sigma**2) * -math.expm1(-self.rho2 * self.eta)
        return torch.cat([x, torch.zeros_like(x), V], 1)

    def f_and_g_prod(self, t, y, dW):
        p, eta, rho1, rho2 = self.p, self.eta, self.rho1, self.rho2
        X, M, V = y.chunk(3, 1)
        g, later = self.h * X, float(t) + eta
        gamma1, root2 = -math.expm1(-rho1 * later), math.sqrt(-math.expm1(-rho2 * later))
        P = V.sqrt().add_(p.eps * root2)
        dX = (-root2 / gamma1) * (M + eta * rho1 * (g - M)) / P - p.weight_decay * X
        drift = torch.cat([dX, rho1 * (g - M), rho2 * (g**2 + p.sigma**2 - V)], 1)
        zero = torch.zeros_like(X)
        return drift, torch.cat([zero, math.sqrt(eta) * rho1 * p.sigma * dW, zero], 1)

    def loss(self, y):
        return super().loss(y.chunk(3, 1)[0])


_SDES = {
    "sign": _Sign,
    "gbm": _GeometricBrownianMotion,
    "dense": _Dense,
    "usam": _USAM,
    "dnsam": _DNSAM,
    "adamw": _AdamW,
    "rmsprop": _RMSprop,
    "rmsprop-order-2": _RMSpropOrder2,
}
