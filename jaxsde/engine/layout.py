"""How much a step multiplies and holds, which decides how its paths run."""

import math
from typing import Any, NamedTuple

import jax.extend.core

IN_TURN = 2**20  # multiplications between what differs from path to path


class Work(NamedTuple):
    """What products of matrices and convolutions take on one path.

    Fields:
        own: multiplications of two factors that both depend on the path: weights, activations.
        all: with those of a factor that all paths share, such as data.
        largest: numbers in the largest array that depends on the path.
    """

    own: int = 0
    all: int = 0
    largest: int = 0

    def plus(self, other: "Work", times: int = 1) -> "Work":
        """Both, the other as many times over."""
        largest = max(self.largest, other.largest)
        return Work(self.own + times * other.own, self.all + times * other.all, largest)

    @property
    def in_turn(self) -> bool:
        """Whether paths are faster one after the other, each in the cache, than side by side.

        Factors that all paths share make one large product of many small ones. Without them there
        is none, and many paths' activations fill the memory instead.
        """
        return self.own >= IN_TURN


def work(jaxpr: Any, varies: list[bool]) -> Work:
    """That of a function of which these inputs depend on the path."""
    return _walk(jaxpr, varies)[0]


def _walk(jaxpr: Any, varies: list[bool]) -> tuple[Work, list[bool]]:
    known = dict(zip(jaxpr.invars, varies, strict=True))

    def of(atom: Any) -> bool:
        return not isinstance(atom, jax.extend.core.Literal) and known.get(atom, False)

    total = Work()
    for equation in jaxpr.eqns:
        flags = [of(atom) for atom in equation.invars]
        found, out = _of(equation, flags)
        out = out or [any(flags)] * len(equation.outvars)
        sizes = [math.prod(atom.aval.shape) for atom in equation.outvars]
        held = max((size for size, own in zip(sizes, out, strict=True) if own), default=0)
        total = total.plus(found).plus(Work(largest=held))
        known.update(zip(equation.outvars, out, strict=True))
    return total, [of(atom) for atom in jaxpr.outvars]


def _of(equation: Any, flags: list[bool]) -> tuple[Work, list[bool]]:
    """An operation's work, and which outputs depend on the path if not all or none."""
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        count = _multiplications(equation) if any(flags) else 0
        return Work(count if all(flags) else 0, count), []
    inner = [part for value in params.values() for part in _jaxprs(value)]
    if name == "scan":
        (body,) = inner  # from constants, the carry and slices to the carry and slices
        last = _whole(equation.invars, body.invars)
        first = last - _whole(equation.outvars, body.outvars)
        carried = flags[:first] + [any(flags)] * (last - first) + flags[last:]
        return Work().plus(_walk(body, carried)[0], params["length"]), []
    if name == "cond":
        works, outs = zip(*[_walk(branch, flags[1:]) for branch in inner], strict=True)
        out = [flags[0] or any(of_each) for of_each in zip(*outs, strict=True)]
        return max(works, key=lambda part: part.all), out
    if len(inner) == 1 and len(inner[0].invars) == len(flags):
        return _walk(inner[0], flags)
    found = [_walk(part, [any(flags)] * len(part.invars))[0] for part in inner]
    return max(found, key=lambda part: part.all, default=Work()), []


def _whole(outer: Any, inner: Any) -> int:
    """How many of a loop's arrays are not sliced along it."""
    return sum(a.aval.ndim == b.aval.ndim for a, b in zip(outer, inner, strict=True))


def _jaxprs(value: Any) -> list[Any]:
    """The functions in an operation's parameter."""
    if isinstance(value, jax.extend.core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jax.extend.core.Jaxpr):
        return [value]
    return [part for each in value for part in _jaxprs(each)] if isinstance(value, tuple) else []


def _multiplications(equation: Any) -> int:
    left, right = (atom.aval.shape for atom in equation.invars)
    out = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        return out * math.prod(left[axis] for axis in contracted)
    features = equation.params["dimension_numbers"].rhs_spec[0]
    return out * math.prod(right) // right[features]
