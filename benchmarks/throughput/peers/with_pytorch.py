"""A PyTorch loop: preallocated arrays, operations in place."""

import math
from collections.abc import Callable

import torch

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import moments

PACKAGES = ("torch", "numpy")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build(case: Case, variant: str) -> Callable | None:
    """A loop over an array (d, paths)."""
    simulate = _LOOPS.get(case.equation)
    if simulate is None:
        return None

    @torch.no_grad()
    def run(steps, seed):
        torch.manual_seed(seed)
        x = _column(case.x0).repeat(1, case.paths)
        return moments(simulate(case, x, steps).cpu())

    return run


def device() -> tuple[str, int | None]:
    """Where PyTorch runs, and the most memory it used."""
    if DEVICE == "cpu":
        return f"cpu, {torch.get_num_threads()} threads", None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def _column(vector) -> torch.Tensor:
    return torch.from_numpy(vector)[:, None].to(DEVICE)


def _quadratic_loss(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (h * x**2).sum(0) / 2


def _sign(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    dt, h = case.dt, _column(case.parameters.h)
    slope = h / (case.parameters.sigma * math.sqrt(2))
    mean, xi = torch.empty_like(x), torch.empty_like(x)
    for _ in range(steps):
        torch.mul(slope, x, out=mean).erf_()
        x.sub_(mean, alpha=dt)
        mean.square_().neg_().add_(1).sqrt_().mul_(xi.normal_())
        x.add_(mean, alpha=dt)  # √η √dt = dt
    return _quadratic_loss(h, x)


def _gbm(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    growth = 1 + case.dt * _column(case.parameters.mu)
    s, xi = math.sqrt(case.dt) * _column(case.parameters.s), torch.empty_like(x)
    for _ in range(steps):
        x.mul_(xi.normal_().mul_(s).add_(growth))
    return x.sum(0)


def _adamw(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    p, eta = case.parameters, case.dt
    h, rho1, rho2 = _column(p.h), (1 - p.b1) / eta, (1 - p.b2) / eta
    V = ((h * x) ** 2 + p.sigma**2) * -math.expm1(-rho2 * eta)
    M, g, P, xi = torch.zeros_like(x), torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    for k in range(steps):
        gamma1 = -math.expm1(-rho1 * eta * (k + 1))
        root2 = math.sqrt(-math.expm1(-rho2 * eta * (k + 1)))
        torch.mul(h, x, out=g)
        torch.sqrt(V, out=P).add_(p.eps * root2)
        V.mul_(1 - rho2 * eta).addcmul_(g, g, value=rho2 * eta).add_(rho2 * eta * p.sigma**2)
        g.sub_(M)  # g - M
        x.mul_(1 - p.weight_decay * eta)
        torch.add(M, g, alpha=eta * rho1, out=xi)
        x.addcdiv_(xi, P, value=-eta * root2 / gamma1)
        M.add_(g, alpha=rho1 * eta).add_(xi.normal_(), alpha=eta * rho1 * p.sigma)
    return _quadratic_loss(h, x)


def _rmsprop(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    p, dt, H, R, s = case.parameters, case.dt, *_of_matrices(case)[:3]
    P, g, xi = (torch.empty_like(x) for _ in range(3))
    V = _product(H, x, out=torch.empty_like(x)).square() + s
    for _ in range(steps):
        _product(H, x, out=g)
        torch.sqrt(V, out=P).add_(p.eps)
        V.mul_(1 - p.rho * dt).addcmul_(g, g, value=p.rho * dt).add_(s, alpha=p.rho * dt)
        _add_product(g, R, xi.normal_())
        x.addcdiv_(g, P, value=-dt)  # √η √dt = dt
    return (x * _product(H, x, out=g)).sum(0) / 2


def _rmsprop_order_2(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    p, eta, (H, R, s, Q) = case.parameters, case.dt, _of_matrices(case)
    rho, floor = p.rho, eta * p.rho * s
    root, P, g, away, moved, bent, kick, xi = (torch.empty_like(x) for _ in range(8))
    V = _product(H, x, out=g).square() + s
    for _ in range(steps):
        _product(H, x, out=g)
        torch.maximum(V, floor, out=root).sqrt_()
        torch.add(root, p.eps, out=P)
        torch.sub(s, V, out=away).addcmul_(g, g)
        torch.div(g, P, out=moved)
        _product(H, moved, out=bent)  # H D g
        _product(R, xi.normal_(), out=kick)
        moved.mul_(away).div_(root)
        V.add_(away, alpha=eta * rho * (1 + eta * rho / 2))
        torch.mul(bent, eta, out=away).add_(kick, alpha=2).mul_(g)
        _add_product(away, Q, xi.normal_())
        V.add_(away, alpha=eta * rho)  # √η √dt = η
        g.add_(bent, alpha=eta / 2).add_(moved, alpha=eta * rho / 4).add_(kick)
        x.addcdiv_(g, P, value=-eta)
    return (x * _product(H, x, out=g)).sum(0) / 2


def _of_matrices(case: Case) -> tuple[torch.Tensor, ...]:
    """H, R, s and Q, diagonals as columns."""
    p = case.parameters
    given = (p.H, p.root, p.variance, p.squares_root)
    return tuple(_column(A) if A.ndim == 1 else torch.from_numpy(A).to(DEVICE) for A in given)


def _product(A: torch.Tensor, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.mul(A, x, out=out) if A.shape[1] == 1 else torch.mm(A, x, out=out)


def _add_product(to: torch.Tensor, A: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return to.addcmul_(A, x) if A.shape[1] == 1 else to.addmm_(A, x)


def _dense(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    H, root = (torch.from_numpy(A).to(DEVICE) for A in (case.parameters.H, case.parameters.root))
    return _matrix_loss(H, _linear(case.dt, H, root, x, steps))


def _usam(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    H, K = (torch.from_numpy(A).to(DEVICE) for A in (case.parameters.H, case.parameters.gain))
    return _matrix_loss(H, _linear(case.dt, K @ H, case.parameters.sigma * K, x, steps))


def _linear(
    dt: float, A: torch.Tensor, root: torch.Tensor, x: torch.Tensor, steps: int
) -> torch.Tensor:
    """x - A x dt + root ξ dt; √η √dt = dt."""
    decay = torch.eye(len(A), device=DEVICE) - dt * A
    xi, after = torch.empty_like(x), torch.empty_like(x)
    for _ in range(steps):
        torch.mm(decay, x, out=after)
        x, after = after.addmm_(root, xi.normal_(), alpha=dt), x
    return x


def _matrix_loss(H: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (x * (H @ x)).sum(0) / 2


def _dnsam(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    p, H = case.parameters, torch.from_numpy(case.parameters.H).to(DEVICE)
    v, Hv, xi = (torch.empty_like(x) for _ in range(3))
    for _ in range(steps):
        torch.mm(H, x, out=v)
        norm = torch.linalg.vector_norm(v, dim=0)
        v.add_(xi.normal_(), alpha=p.sigma)
        torch.mm(H, v, out=Hv)
        x.sub_(v.addcdiv_(Hv, norm, value=p.rho), alpha=case.dt)
    return _matrix_loss(H, x)


def _sign_optimizer(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    h, sigma, g = _column(case.parameters.h), case.parameters.sigma, torch.empty_like(x)
    for _ in range(steps):
        g.normal_(std=sigma).addcmul_(h, x).sign_()
        x.sub_(g, alpha=case.dt)
    return _quadratic_loss(h, x)


def _adamw_optimizer(case: Case, x: torch.Tensor, steps: int) -> torch.Tensor:
    p, eta, h = case.parameters, case.dt, _column(case.parameters.h)
    M, V, g, P = (torch.zeros_like(x) for _ in range(4))
    for k in range(1, steps + 1):
        g.normal_(std=p.sigma).addcmul_(h, x)
        M.lerp_(g, 1 - p.b1)
        V.mul_(p.b2).addcmul_(g, g, value=1 - p.b2)
        torch.sqrt(V, out=P).div_(math.sqrt(1 - p.b2**k)).add_(p.eps)
        x.mul_(1 - eta * p.weight_decay).addcdiv_(M, P, value=-eta / (1 - p.b1**k))
    return _quadratic_loss(h, x)


_LOOPS = {
    "sign": _sign,
    "gbm": _gbm,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "rmsprop-order-2": _rmsprop_order_2,
    "dense": _dense,
    "usam": _usam,
    "dnsam": _dnsam,
    "sign-optimizer": _sign_optimizer,
    "adamw-optimizer": _adamw_optimizer,
}
