"""One step of each equation for Numba, and the numbers it needs."""

import math

import numba
import numpy as np

from benchmarks.throughput.cases import Case

f32 = np.float32
njit = numba.njit(fastmath=True, inline="always")


@njit
def _sign(state, xi, k, parameters):
    slope, dt = parameters
    for i in range(state.shape[1]):
        mean = f32(math.erf(slope[i] * state[0, i]))
        state[0, i] += dt * (math.sqrt(f32(1) - mean * mean) * xi[i] - mean)  # √η √dt = dt


@njit
def _gbm(state, xi, k, parameters):
    growth, s = parameters
    for i in range(state.shape[1]):
        state[0, i] *= growth[i] + s[i] * xi[i]


@njit
def _sign_optimizer(state, xi, k, parameters):
    h, sigma, eta = parameters
    for i in range(state.shape[1]):
        state[0, i] -= math.copysign(eta, h[i] * state[0, i] + sigma * xi[i])


@njit
def _dense(state, xi, k, parameters):
    decay, root = parameters  # transposed, so that the inner loop is contiguous
    d = state.shape[1]
    after = np.zeros(d, np.float32)
    for j in range(d):
        for i in range(d):
            after[i] += decay[j, i] * state[0, j] + root[j, i] * xi[j]
    state[0] = after


@njit
def _dnsam(state, xi, k, parameters):
    H, sigma, rho, eta = parameters
    d = state.shape[1]
    v, Hv, square = np.zeros(d, np.float32), np.zeros(d, np.float32), f32(0)
    for j in range(d):
        for i in range(d):
            v[i] += H[j, i] * state[0, j]
    for i in range(d):
        square += v[i] * v[i]
        v[i] += sigma * xi[i]
    for j in range(d):
        for i in range(d):
            Hv[i] += H[j, i] * v[j]
    for i in range(d):
        state[0, i] -= eta * (v[i] + rho / math.sqrt(square) * Hv[i])


@njit
def _adamw(state, xi, k, parameters):
    h, gamma1, root2, rho1, rho2, sigma, eps, theta, eta = parameters
    for i in range(state.shape[1]):
        x, M, V = state[0, i], state[1, i], state[2, i]
        g = h[i] * x
        moved = eta * rho1 * (g - M)
        P = math.sqrt(V) + eps * root2[k]
        state[0, i] = x - eta * (root2[k] / gamma1[k] * (M + moved) / P + theta * x)
        state[1, i] = M + moved + eta * rho1 * sigma * xi[i]
        state[2, i] = V + eta * rho2 * (g * g + sigma * sigma - V)


@njit
def _adamw_optimizer(state, xi, k, parameters):
    h, correction1, root2, b1, b2, sigma, eps, theta, eta = parameters
    for i in range(state.shape[1]):
        x = state[0, i]
        g = h[i] * x + sigma * xi[i]
        M = b1 * state[1, i] + (f32(1) - b1) * g
        V = b2 * state[2, i] + (f32(1) - b2) * g * g
        P = math.sqrt(V) / root2[k] + eps
        state[0, i] = x - eta * (M / correction1[k] / P + theta * x)
        state[1, i], state[2, i] = M, V


def _sign_parameters(case: Case, steps: int, tile: int) -> tuple:
    p = case.parameters
    return np.tile(p.h, tile) / f32(p.sigma * math.sqrt(2)), f32(case.dt)


def _gbm_parameters(case: Case, steps: int, tile: int) -> tuple:
    p, dt = case.parameters, f32(case.dt)
    return np.tile(1 + dt * p.mu, tile), np.tile(np.sqrt(dt) * p.s, tile)


def _sign_optimizer_parameters(case: Case, steps: int, tile: int) -> tuple:
    return np.tile(case.parameters.h, tile), f32(case.parameters.sigma), f32(case.dt)


def _dense_parameters(case: Case, steps: int, tile: int) -> tuple:
    return _linear(case, case.parameters.H, case.parameters.root)


def _usam_parameters(case: Case, steps: int, tile: int) -> tuple:
    p = case.parameters
    return _linear(case, p.gain @ p.H, f32(p.sigma) * p.gain)


def _linear(case: Case, A: np.ndarray, root: np.ndarray) -> tuple:
    dt = f32(case.dt)
    decay = np.eye(case.d, dtype=np.float32) - dt * A
    return np.ascontiguousarray(decay.T), np.ascontiguousarray(dt * root.T)


def _dnsam_parameters(case: Case, steps: int, tile: int) -> tuple:
    p = case.parameters
    return p.H, f32(p.sigma), f32(p.rho), f32(case.dt)


def _adamw_parameters(case: Case, steps: int, tile: int) -> tuple:
    p, eta = case.parameters, case.dt
    rho1, rho2, later = (1 - p.b1) / eta, (1 - p.b2) / eta, eta * np.arange(1, steps + 1)
    gamma1, root2 = -np.expm1(-rho1 * later), np.sqrt(-np.expm1(-rho2 * later))
    scalars = (rho1, rho2, p.sigma, p.eps, p.weight_decay, eta)
    return np.tile(p.h, tile), gamma1.astype(f32), root2.astype(f32), *map(f32, scalars)


def _adamw_optimizer_parameters(case: Case, steps: int, tile: int) -> tuple:
    p, k = case.parameters, np.arange(1, steps + 1)
    correction1, root2 = 1 - p.b1**k, np.sqrt(1 - p.b2**k)
    scalars = (p.b1, p.b2, p.sigma, p.eps, p.weight_decay, case.dt)
    return np.tile(p.h, tile), correction1.astype(f32), root2.astype(f32), *map(f32, scalars)


def _one_row(case: Case) -> np.ndarray:
    return case.x0[None]


def _adamw_rows(case: Case) -> np.ndarray:
    p, rows = case.parameters, np.zeros((3, case.d), np.float32)
    rows[0] = case.x0
    if case.equation == "adamw":
        rows[2] = -math.expm1(-(1 - p.b2)) * ((p.h * case.x0) ** 2 + p.sigma**2)
    return rows


EQUATIONS = {
    "sign": (_sign, _sign_parameters, _one_row),
    "gbm": (_gbm, _gbm_parameters, _one_row),
    "adamw": (_adamw, _adamw_parameters, _adamw_rows),
    "dense": (_dense, _dense_parameters, _one_row),
    "usam": (_dense, _usam_parameters, _one_row),
    "dnsam": (_dnsam, _dnsam_parameters, _one_row),
    "sign-optimizer": (_sign_optimizer, _sign_optimizer_parameters, _one_row),
    "adamw-optimizer": (_adamw_optimizer, _adamw_optimizer_parameters, _adamw_rows),
}
