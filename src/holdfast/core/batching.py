"""Equal maps on equal shapes, evaluated as one batch.

Note [One batch]
    The tensors that equal chains compute from are stacked, a twin of the chain that has
    the stacks for its own computes the stack of the values, and these are handed out as
    its slices: one evaluation and one backward pass for all. A gradient goes back the
    same way. Each value still has an `Entry` of its own, so that a change to one weight
    costs the evaluation of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor, nn
from torch.autograd import forward_ad

from ..linalg.memory import keep_freed_memory
from .calling import GLOBAL_HOOKS, GLOBAL_PRE_HOOKS, is_unhooked
from .chain import ParametrizationList
from .entry import Entry, autocast_of, trackable
from .kinds import Kind, Likeness, kind_of
from .parametrization import Foreach
from .sharing import Notes, claim
from .stacking import (
    Rows,
    batched,
    keeping,
    rows_of,
    stacked,
    twin_of,
)
from .torch_state import dispatch_modes, tracing_state, transforming

# Where a batch is faster on one thread of a CPU: how many tensors it takes at least,
# and of how many elements each at most. A product of larger ones is longer than all
# that surrounds it, and `vmap` asks functions for derivatives in plain operations.
# Other devices were not measured.
PAYS: dict[Foreach, tuple[int, int]] = {"stack": (4, 96 * 96), "vmap": (8, 48 * 48)}

# A batch has at most so many elements, or else two members. What it takes in memory
# beside the values and what the maps keep is one copy of what they compute from.
BATCH = 2**18


class Member(NamedTuple):
    """A tensor in a batch."""

    chain: ParametrizationList
    kind: Kind
    links: dict[str, Any]  # where the host keeps its chains
    name: str
    state: dict[str, Any]  # the chain's `__dict__`: slow to ask for


Group = list[Member]
Entries = dict[ParametrizationList, Entry]


class Model:
    """A module and all below it, with the parametrized tensors by kind.

    Args:
        root: the module.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = ref(root)
        self._below: set[nn.Module] = set()
        self._hosts: list[nn.Module] = []  # what holds the chains of each
        self._layout: list[dict[str, Any]] = []  # of what has modules below it
        self._lowest: list[dict[str, Any]] = []
        self._groups: dict[bool, dict[ParametrizationList, Group]] = {}
        modules: list[nn.Module | None] = [root]
        for module in modules:
            if module is not None and module not in self._below:
                self._below.add(module)
                below = module.__dict__["_modules"]
                (self._layout if below else self._lowest).append(below)
                if "parametrizations" in below:
                    self._hosts.append(below["parametrizations"])
                modules += below.values()
        self._below.discard(root)  # which a note on it must not keep alive
        self._was = self._all_below()

    @classmethod
    def of(cls, root: nn.Module) -> Model:
        """Return what is known of a module, if that is still true."""
        model = _models.get(root)
        if model is None or any(model._lowest) or model._all_below() != model._was:
            model = cls(root)
            _models.put(root, model)
        return model

    def _all_below(self) -> list[Any]:
        """Return the modules below the others, one after the other: for every scope."""
        return [*itertools.chain.from_iterable(map(_values, self._layout))]

    def __contains__(self, module: nn.Module) -> bool:
        return module in self._below or module is self._root()

    def fill(
        self,
        chain: ParametrizationList,
        values: Entries,
        *,
        grad: bool,
        everywhere: bool,
        hand_out: Callable[[Tensor, ParametrizationList], Tensor] | None = None,
    ) -> Tensor | None:
        """Compute a value with all of its group that are out of date, or do nothing.

        ``everywhere``: also where a batch does not pay. ``hand_out`` turns a value into
        what is stored.
        """
        if is_out_of_the_ordinary():
            return None
        group = self.group_of(chain, everywhere=everywhere)
        members, rows = ready(group, values, grad=grad)
        place = next((i for i, m in enumerate(members) if m.chain is chain), None)
        if place is None or not is_enough(members, everywhere=everywhere):
            return None
        epochs = [member.state["_epoch"] for member in members]
        with trackable():
            found = _evaluate(members[0], rows, grad=grad)
        if found is None:
            return None
        chains, *_, states = zip(*members, strict=True)
        if hand_out is not None:
            found = tuple(map(hand_out, found, chains))
        autocast = itertools.repeat(autocast_of(found[0]))
        # no stamp afterwards: another thread's change shows in the versions
        fields = zip(found, states, epochs, autocast, rows, strict=False)
        values.update(zip(chains, map(_as_entry, fields), strict=True))
        return found[place]

    def group_of(self, chain: ParametrizationList, *, everywhere: bool) -> Group:
        """Return the tensors that are evaluated along with this one, and itself."""
        kind = kind_of(chain)
        if kind is None or not (everywhere or pays(kind)):
            return []
        for _ in range(2):
            groups = self._groups.get(everywhere)
            if groups is None:
                groups = self._groups[everywhere] = self._grouped(everywhere=everywhere)
            group = groups.get(chain, [])
            if not group or any(m.chain is chain and m.kind is kind for m in group):
                return group
            self._groups.clear()  # made for what it was before a change
        return []

    def _grouped(self, *, everywhere: bool) -> dict[ParametrizationList, Group]:
        kinds: dict[Likeness, Group] = {}
        groups: dict[ParametrizationList, Group] = {}
        for chains in self._hosts:
            for name, chain in _chains_in(chains):
                kind = kind_of(chain)
                if kind is not None and (everywhere or pays(kind)):
                    group = kinds.get(kind.likeness, [])
                    if len(group) >= max(2, BATCH // max(1, kind.size)):
                        group = []  # the other one is full
                    links, state = chains._modules, chain.__dict__
                    group.append(Member(chain, kind, links, name, state))
                    groups[chain] = kinds[kind.likeness] = group
        if groups:
            keep_freed_memory()
        return groups


_models: Notes[Model] = Notes()
_values = dict[str, Any].values
_as_entry: Callable[[tuple[Any, ...]], Entry] = partial(tuple.__new__, Entry)


def _chains_in(chains: nn.Module) -> Iterator[tuple[str, ParametrizationList]]:
    """Yield name and chain of the tensors that we parametrized; torch may have some."""
    for name, chain in chains._modules.items():
        if isinstance(chain, ParametrizationList):
            yield name, chain


def pays(kind: Kind) -> bool:
    """Tell whether a batch of many is faster than one tensor after the other."""
    registry, name = kind.places[0]
    tensor: Any = registry[name]
    return kind.size <= PAYS[kind.foreach][1] and tensor.is_cpu


def is_enough(members: Group, *, everywhere: bool) -> bool:
    """Tell whether a batch of these is faster than one tensor after the other."""
    if everywhere or not members:
        return len(members) > 1
    return len(members) >= PAYS[members[0].kind.foreach][0]


def is_out_of_the_ordinary() -> bool:
    """Tell whether tensors may be other than they look, or their uses are watched."""
    return bool(
        transforming()
        or forward_ad._current_level >= 0
        or dispatch_modes()
        or tracing_state() is not None
        or GLOBAL_HOOKS
        or GLOBAL_PRE_HOOKS
    )


def ready(group: Group, values: Entries, *, grad: bool) -> tuple[Group, Rows]:
    """Return the members that have no current value, with what they compute from."""
    members: Group = []
    for member in group:
        chain, kind, links, name, state = member
        if (
            state["_kind"] is not kind  # changed since
            or links.get(name) is not chain
            or (state["_special"] and not _is_only_moving(chain))
            or (not grad and state["_memo"] is not None)
        ):
            continue
        if values:
            entry = values.get(chain)
            if entry is not None and entry.is_current(chain):
                continue
        members.append(member)
    rows = rows_of([member.kind for member in members])
    if rows is None:
        members = [member for member in members if rows_of([member.kind])]
        rows = rows_of([member.kind for member in members]) or []
    return members, rows


def _is_only_moving(chain: ParametrizationList) -> bool:
    return not chain._overrides and is_unhooked(chain)


def _evaluate(member: Member, rows: Rows, *, grad: bool) -> tuple[Tensor, ...] | None:
    """Return the values of chains like this one, a row of tensors for each."""
    stacks = stacked(rows)
    if stacks is None:
        return None

    def value(*tensors: Tensor) -> Tensor:
        twin = twin_of(member.chain, tensors)
        claim(twin)  # a map may ask for the chain that it is in
        return twin.compute(*twin.originals())

    compute = batched(member.kind, value)
    if grad and any(place[4] for place in rows[0]):
        return keeping(compute, stacks, rows)
    return compute(*stacks).unbind()
