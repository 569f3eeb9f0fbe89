"""Moving state of equal maps, advanced as one batch and ahead of time.

Note [Ahead of the forward]
    State moves once per training forward of its module (R2), and a batch of values is
    computed when the first of them is read. So the first forward in a scope advances
    the state of the whole batch, and each of the other modules finds it done when its
    own forward comes. The weights are still what they were then, or else the state is
    put back and advanced anew; and it is put back if no forward comes before the
    optimizer steps or the scope ends. A forward inside a checkpoint finds it done too,
    and what a checkpoint computes again finds the state of the last forward.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .batching import Group, Member, Model, is_enough, is_out_of_the_ordinary, ready
from .chain import ParametrizationList
from .moving import advance_, movers
from .sharing import parts_of
from .stacking import Row, batched, stacked, twin_of
from .torch_state import write_all


class _Advance(NamedTuple):
    """What was done for a tensor whose forward has not come yet."""

    row: Row  # what it computes from, as it was afterwards
    moved: tuple[Tensor, ...]
    before: tuple[Tensor, ...]

    def still_fits(self) -> bool:
        return all(
            registry.get(name) is tensor and tensor._version == version
            for registry, name, tensor, version, _ in self.row
        )

    def take_back_(self) -> None:
        """Put the state back, unless somebody else has changed it since."""
        ours = {id(place[2]): place for place in self.row}
        with torch.no_grad():
            for tensor, old in zip(self.moved, self.before, strict=True):
                registry, name, _, version, _ = ours[id(tensor)]
                if registry.get(name) is tensor and tensor._version == version:
                    tensor.copy_(old)


class Advances:
    """What has been advanced in a scope: Note [Ahead of the forward]."""

    def __init__(self) -> None:
        self._ahead: dict[ParametrizationList, _Advance] = {}

    def take(self, chain: ParametrizationList, model: Model, *, always: bool) -> bool:
        """Tell whether the state of a tensor is as its forward wants it.

        It is if it was advanced before, or can be now along with others.
        """
        if was_advanced(chain):
            return True
        if is_out_of_the_ordinary():
            return False
        group = model.group_of(chain, everywhere=always)
        members = [
            member
            for member in group
            if member.chain not in self._ahead and member.chain.training
        ]
        members, rows = ready(members, {}, grad=True)
        if not any(member.chain is chain for member in members):
            return False
        if not is_enough(members, everywhere=always):
            return False
        advances = _advance_(members, rows)
        if advances is None:
            return False
        for member, advance in zip(members, advances, strict=True):
            if member.chain is not chain:
                self._ahead[member.chain] = advance
                holders[member.chain] = self
        return True

    def give(self, chain: ParametrizationList) -> _Advance | None:
        """Return what was done for a tensor, and forget it."""
        return self._ahead.pop(chain, None)

    def take_back_(self) -> None:
        """Put back what no forward has asked for."""
        while self._ahead:
            self._ahead.popitem()[1].take_back_()


# In all threads: a backward pass on a device has one of its own
holders: WeakKeyDictionary[ParametrizationList, Advances] = WeakKeyDictionary()


def was_advanced(chain: ParametrizationList) -> bool:
    """Tell whether the state of a tensor was advanced for the forward that comes."""
    done = _given(chain)
    if done is None or done.still_fits():
        return done is not None
    done.take_back_()
    return False


def put_back_(chain: ParametrizationList) -> None:
    """Put the state of a tensor back to where the last forward has left it."""
    done = _given(chain)
    if done is not None:
        done.take_back_()


def _given(chain: ParametrizationList) -> _Advance | None:
    holder = holders.pop(chain, None) if holders else None
    return None if holder is None else holder.give(chain)


def _advance_(members: Group, rows: list[Row]) -> list[_Advance] | None:
    """Advance the state of equal chains, and return how to go back."""
    columns = stacked(rows)
    if columns is None:
        return None
    first = members[0]
    moving = _moving_places(first)
    before = [columns[place].clone() for place in moving]

    def advance(*tensors: Tensor) -> tuple[Tensor, ...]:
        twin = twin_of(first.chain, tensors)
        advance_(twin, twin.originals())
        return tuple(tensors[place] for place in moving)

    with torch.no_grad():
        for place, stack in zip(
            moving, batched(first.kind, advance)(*columns), strict=True
        ):
            write_all([row[place][2] for row in rows], stack.unbind())
    old = zip(*(stack.unbind() for stack in before), strict=True)
    advances: list[_Advance] = []
    for member, row, values in zip(members, rows, old, strict=True):
        chain = member.chain
        chain.__dict__["_refined"] = (chain.versions(), None)
        now = tuple((r, n, tensor, tensor._version, w) for r, n, tensor, _, w in row)
        moved = tuple(row[place][2] for place in moving)
        advances.append(_Advance(now, moved, values))
    return advances


def _moving_places(member: Member) -> list[int]:
    """Return which of the tensors of a chain its maps with moving state may move."""
    registries = [
        part._buffers for map_ in movers(member.chain) for part in parts_of(map_)
    ]
    return [
        place
        for place, (registry, _) in enumerate(member.kind.places)
        if any(registry is own for own in registries)
    ]
