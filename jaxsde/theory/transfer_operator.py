"""Expectations without sampling in up to three dimensions, of chains and of diffusions.

Both act on functions on one Chebyshev grid: a chain by its exact backward operator, a diffusion by
the exponential of its generator. Their difference is the weak error, free of Monte Carlo noise and
of time steps. `backward_equation` is for one dimension with kinks or steep coefficients.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import ArrayLike, Float

from jaxsde import _checks

Points = Float[np.ndarray, "N n"]
Domain = Sequence[tuple[float, float]]

_MOST = 4096  # grid points: the operators are dense


def chain_expectation(
    update: Callable[[Points, np.ndarray], np.ndarray],
    atoms: ArrayLike,
    weights: ArrayLike,
    observable: Callable[[Points], np.ndarray],
    x0: ArrayLike,
    steps: int,
    domain: Domain,
    degree: int | Sequence[int],
) -> Float[np.ndarray, "..."]:
    """E φ(x_K) given x_0 = x₀, for the chain x⁺ = update(x, ξ), ξ with finitely many values.

    The backward operator (P u)(x) = Σₐ pₐ u(update(x, ξₐ)) acts on the polynomial that interpolates
    u on the grid, K times on φ. The only error is that of the interpolation, spectrally small for
    smooth updates where the mean step leads inwards at the domain's ends: steps out of it evaluate
    the polynomial there. Take the domain just wide enough for the chain from x₀; a wider one needs
    a higher degree. Compare two degrees to see the error. Float64 on the host.

    Args:
        update: maps states `(N, n)` and one atom to the next states `(N, n)`.
        atoms: ξₐ, `(A, ...)`. (-√3, 0, √3) with weights (1/6, 2/3, 1/6) has the normal's first five
            moments.
        weights: pₐ, `(A,)`.
        observable: φ, maps `(N, n)` to `(N,)`, or to `(N, m)` for m functions at once.
        x0: starts, `(..., n)`, n <= 3.
        steps: K.
        domain: (low, high) of every coordinate.
        degree: the interpolating polynomial's in each coordinate, or one for all.

    Returns:
        The expectations, x₀'s shape without its last axis, then φ's m.

    Raises:
        InputError: weights that do not sum to 1 or do not fit the atoms, a start outside the
            domain, more than 3 coordinates or 4096 grid points, or fewer than 0 steps.
    """
    grid, start = _grid(domain, degree), _starts(x0, domain)
    atoms, weights = np.asarray(atoms, float), np.asarray(weights, float)
    if weights.shape != atoms.shape[:1] or not np.isclose(weights.sum(), 1, rtol=0, atol=1e-12):
        raise _checks.InputError(
            f"weights must sum to 1, one an atom, got {weights.shape} for atoms {atoms.shape}"
        )
    steps = _checks.at_least("steps", steps, 0)
    size = len(grid.points)
    backward = np.zeros((size, size))
    for atom, weight in zip(atoms, weights, strict=True):
        backward += weight * _interpolation(grid, np.asarray(update(grid.points, atom), float))
    u = np.asarray(observable(grid.points), float)
    for _ in range(steps):
        u = backward @ u
    return _at(grid, start, u)


def diffusion_expectation(
    drift: Callable[[Points], np.ndarray],
    covariance: Callable[[Points], np.ndarray],
    observable: Callable[[Points], np.ndarray],
    x0: ArrayLike,
    time: float,
    domain: Domain,
    degree: int | Sequence[int],
    third_cumulant: Callable[[Points], np.ndarray] | None = None,
) -> Float[np.ndarray, "..."]:
    """E φ(X_T) given X_0 = x₀, for dX = b(X) dt + s(X) dW (Itô) with s sᵀ = C.

    e^{TL} φ with the generator L = b·∇ + C:∇²/2 on the grid's polynomials, without boundary
    conditions: exact where L maps them to themselves (linear drift, constant C), else spectrally
    accurate under the conditions of `chain_expectation`. Without boundary conditions too high a
    degree does harm: spurious modes grow where the noise is large beside the domain.

    Args:
        drift: b, maps `(N, n)` to `(N, n)`.
        covariance: C, maps `(N, n)` to `(N, n, n)`.
        observable: φ, maps `(N, n)` to `(N,)`, or to `(N, m)` for m functions at once.
        x0: starts, `(..., n)`, n <= 3.
        time: T.
        domain: (low, high) of every coordinate.
        degree: the polynomial's in each coordinate, or one for all.
        third_cumulant: κ, maps `(N, n)` to `(N, n, n, n)`; adds κ:∇³/6 to L. No process has that
            generator. It stands for a chain's third cumulants per unit time
            (`ModifiedEquation.excess_third_cumulant`).

    Returns:
        The expectations, x₀'s shape without its last axis, then φ's m.

    Raises:
        InputError: a start outside the domain, more than 3 coordinates or 4096 grid points, or a
            time that is not positive.
    """
    grid, start = _grid(domain, degree), _starts(x0, domain)
    _checks.positive_number("time", time)
    generator = _operator(grid, np.asarray(drift(grid.points), float))
    generator += _operator(grid, np.asarray(covariance(grid.points), float)) / 2
    if third_cumulant is not None:
        generator += _operator(grid, np.asarray(third_cumulant(grid.points), float)) / 6
    u = scipy.linalg.expm(time * generator) @ np.asarray(observable(grid.points), float)
    return _at(grid, start, u)


class _Grid(NamedTuple):
    """Nodes and differentiation matrix of every coordinate, and all points `(N, n)`."""

    nodes: list[np.ndarray]
    derivatives: list[np.ndarray]
    points: Points


def _grid(domain: Domain, degree: int | Sequence[int]) -> _Grid:
    ends = np.asarray(domain, float)
    if ends.ndim != 2 or ends.shape[1] != 2 or not 1 <= len(ends) <= 3:
        raise _checks.InputError(
            f"domain must hold a (low, high) for each of 1 to 3 coordinates, got shape {ends.shape}"
        )
    _checks.positive("domain's widths", ends[:, 1] - ends[:, 0])
    degrees = [degree] * len(ends) if isinstance(degree, int) else list(degree)
    if len(degrees) != len(ends):
        raise _checks.InputError(f"got {len(degrees)} degrees for {len(ends)} coordinates")
    degrees = [_checks.at_least("degree", d, 1) for d in degrees]
    if np.prod([d + 1 for d in degrees]) > _MOST:
        raise _checks.InputError(f"more than {_MOST} grid points: lower the degree")
    nodes = [
        (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(d + 1) / d)
        for (low, high), d in zip(ends, degrees, strict=True)
    ]
    mesh = np.meshgrid(*nodes, indexing="ij")
    points = np.stack([axis.ravel() for axis in mesh], axis=-1)
    return _Grid(nodes, [_derivative(x) for x in nodes], points)


def _starts(x0: ArrayLike, domain: Domain) -> np.ndarray:
    start, ends = np.asarray(x0, float), np.asarray(domain, float)
    if start.shape[-1:] != ends.shape[:1]:
        raise _checks.InputError(f"x0 must be (..., {len(ends)}), got shape {start.shape}")
    if not np.all((ends[:, 0] <= start) & (start <= ends[:, 1])):
        raise _checks.InputError(f"x0 must lie in the domain {ends.tolist()}")
    return start


def _barycentric_weights(nodes: np.ndarray) -> np.ndarray:
    """Those of the Chebyshev points: ±1, half at the ends."""
    weights = (-1.0) ** np.arange(len(nodes))
    weights[[0, -1]] /= 2
    return weights


def _derivative(nodes: np.ndarray) -> np.ndarray:
    """The matrix that differentiates the interpolating polynomial; rows sum to 0."""
    weights = _barycentric_weights(nodes)
    gaps = nodes[:, None] - nodes + np.eye(len(nodes))
    matrix = weights / weights[:, None] / gaps
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def _rows(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The interpolating polynomial's values at x, linear in those at the nodes, `(N, d + 1)`."""
    gaps = x[:, None] - nodes
    hits = gaps == 0
    rows = _barycentric_weights(nodes) / np.where(hits, 1, gaps)
    rows = np.where(hits.any(axis=1, keepdims=True), hits, rows)
    return rows / rows.sum(axis=1, keepdims=True)


def _interpolation(grid: _Grid, points: Points) -> np.ndarray:
    """The matrix from values on the grid to values at the points."""
    rows = np.ones((len(points), 1))
    for nodes, x in zip(grid.nodes, points.T, strict=True):
        rows = (rows[:, :, None] * _rows(nodes, x)[:, None, :]).reshape(len(points), -1)
    return rows


def _at(grid: _Grid, start: np.ndarray, u: np.ndarray) -> np.ndarray:
    values = _interpolation(grid, start.reshape(-1, start.shape[-1])) @ u
    return values.reshape(start.shape[:-1] + u.shape[1:])


def _operator(grid: _Grid, coefficient: np.ndarray) -> np.ndarray:
    """coefficient:∇ʳ for a coefficient of shape (N, n, ..., n) with r axes of n."""
    rank, n = coefficient.ndim - 1, len(grid.nodes)
    total = np.zeros((len(grid.points),) * 2)
    for axes in itertools.combinations_with_replacement(range(n), rank):
        permutations = list(set(itertools.permutations(axes)))
        c = np.sum([coefficient[(slice(None), *p)] for p in permutations], axis=0)
        if np.any(c):
            total += c[:, None] * _partial(grid, [axes.count(i) for i in range(n)])
    return total


def _partial(grid: _Grid, counts: list[int]) -> np.ndarray:
    """∂^counts as a matrix on the grid."""
    matrix = np.ones((1, 1))
    for derivative, count in zip(grid.derivatives, counts, strict=True):
        matrix = np.kron(matrix, np.linalg.matrix_power(derivative, count))
    return matrix
