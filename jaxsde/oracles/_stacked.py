"""Several modules of one kind as one."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsde import _checks


class Stacked(eqx.Module):
    """Members of one kind as one: arrays in which they differ have a leading axis.

    Fields:
        tree: the members' common structure, its arrays stacked or not.
        differs: which arrays are stacked, in leaf order.
    """

    tree: Any
    differs: tuple[bool, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, kind: str, members: Sequence[Any]) -> "Stacked":
        """Stacks the members; numbers that are the same in all are kept once.

        Raises:
            InputError: members of different structures or shapes.
        """
        flat, structures = zip(*[jax.tree.flatten(member) for member in members], strict=True)
        if any(structure != structures[0] for structure in structures):
            raise _checks.InputError(f"the {kind} must be of one kind, with the same settings")
        leaves, differs = [], []
        for own in zip(*flat, strict=True):
            if len({np.shape(leaf) for leaf in own}) > 1:
                shapes = ", ".join(sorted({str(np.shape(leaf)) for leaf in own}))
                raise _checks.InputError(
                    f"the {kind} must have arrays of the same shapes, got {shapes}"
                )
            differs.append(not all(_same(own[0], leaf) for leaf in own[1:]))
            leaves.append(jnp.stack(own) if differs[-1] else own[0])
        return cls(structures[0].unflatten(leaves), tuple(differs))

    @property
    def own(self) -> list[Array]:
        """The stacked arrays."""
        return [
            leaf for leaf, of in zip(jax.tree.leaves(self.tree), self.differs, strict=True) if of
        ]

    def one(self, own: list[Array]) -> Any:
        """The member that has these in the places of the stacked arrays."""
        leaves, treedef = jax.tree.flatten(self.tree)
        mine = iter(own)
        return treedef.unflatten(
            [next(mine) if of else leaf for leaf, of in zip(leaves, self.differs, strict=True)]
        )

    @property
    def first(self) -> Any:
        """The first member."""
        return self.one([leaf[0] for leaf in self.own])


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    mine, its = _checks.concrete(a), _checks.concrete(b)
    return mine is not None and its is not None and np.array_equal(mine, its)
