"""Plain tensors in the place of computed ones for a while, and the way back.

`set_aside` makes modules what they would be without parametrizations: class, keys and
attributes are plain. What they gave up is noted here, not in them, so that a copy or a
file of such a module is plain for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidTensorError, path_of
from . import recurrent
from .checks import Where
from .classes import is_parametrized, shared_class
from .memo import slot_of
from .placement import names_in_order, note_successors, undone_on_failure
from .reclassing import reclass
from .sharded import note_sharded
from .sharing import Notes
from .sources import ChainSource, Source, sources_of, undisturbed
from .stand_in import StandIn
from .transaction import Snapshot, decisive, like, write

_REGISTRIES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks")


class Aside:
    """What one module gave up for plain tensors; it does not keep the module alive."""

    def __init__(self, module: nn.Module, stand_ins: list[StandIn]) -> None:
        self.stand_ins = stand_ins
        self.training = module.training
        self.before = type(module)
        self.orders = {r: tuple(module.__dict__[r]) for r in _REGISTRIES}
        self.hooks: list[tuple[str, int, object, tuple[int, ...]]] = []
        self.flat = {k: v for k, v in vars(module).items() if k in recurrent.LISTS}
        self.transient = {s.name for s in stand_ins if not s.source.persistent()}
        self.stands = False  # the plain tensors are in place

    def begin(self, module: nn.Module) -> None:
        """Put the plain tensors in place."""
        plain: dict[str, dict[str, Any]] = {r: {} for r in _REGISTRIES}
        for s in self.stand_ins:
            kind = isinstance(s.tensor, nn.Parameter)
            plain["_parameters" if kind else "_buffers"][s.name] = s.tensor
        orders = {r: names_in_order(module, r) for r in _REGISTRIES[:2]}
        with undone_on_failure(module):
            _exchange(module, self._parts(), plain, orders)
            module.__dict__["_non_persistent_buffers_set"] = (
                module._non_persistent_buffers_set | self.transient
            )
            for s in self.stand_ins:
                module.__dict__.pop(slot_of(s.name), None)
            for source in self._chain_sources():
                source.settle()
                reclass(module, ())
            self.plain_class = type(module)
            recurrent.release(module)
            self._take_hooks(module)
            self.stands = True

    def end(self, module: nn.Module) -> None:
        """Put back what was given up, where the module is and as it is by now.

        If it is interrupted, the plain tensors stay in place.
        """
        try:
            with undone_on_failure(module):
                self._end(module)
                self.stands = False
        except BaseException:
            for registry, key, *_ in self.hooks:
                module.__dict__[registry].pop(key, None)
            raise

    def _end(self, module: nn.Module) -> None:
        now = {s.name: plain_tensor(module, s.name) for s in self.stand_ins}
        for s in self.stand_ins:
            if (tensor := now[s.name]) is not None:
                s.follow(tensor)
            note_successors(s.tensor, s.source.originals())
        names = {registry: dict.fromkeys(now) for registry in _REGISTRIES[:2]}
        _exchange(module, names, self._parts(), self.orders)
        module.__dict__["_non_persistent_buffers_set"] = (
            module._non_persistent_buffers_set - self.transient
        )
        self._class_again(module)
        if shared_class(type(module)) is not None:
            recurrent.release(module)
        else:  # torch's own finds out by itself what has changed since
            module.__dict__.update(self.flat)
        self._return_hooks(module)
        for source in self._chain_sources():
            source.settle()
            if module.training != self.training:
                source.chains.train(module.training)

    def _parts(self) -> dict[str, dict[str, Any]]:
        parts: dict[str, dict[str, Any]] = {}
        for s in self.stand_ins:
            for registry, entries in s.source.parts().items():
                parts.setdefault(registry, {}).update(entries)
        return parts

    def _chain_sources(self) -> list[ChainSource]:
        sources = (s.source for s in self.stand_ins)
        return [source for source in sources if isinstance(source, ChainSource)]

    def _class_again(self, module: nn.Module) -> None:
        if type(module) is self.plain_class:
            object.__setattr__(module, "__class__", self.before)
        else:  # another tool has put a class on top meanwhile
            reclass(module, [source.name for source in self._chain_sources()])

    def _take_hooks(self, module: nn.Module) -> None:
        """Take our hooks out of the registries, which handles of others refer to."""
        for registry in _HOOKS:
            hooks = module.__dict__[registry]
            for key, hook in [*hooks.items()]:
                if any(s.source.owns(hook) for s in self.stand_ins):
                    later = tuple(hooks)[list(hooks).index(key) + 1 :]
                    self.hooks.append((registry, key, hooks.pop(key), later))

    def _return_hooks(self, module: nn.Module) -> None:
        for registry, key, hook, later in reversed(self.hooks):
            hooks = module.__dict__[registry]
            hooks[key] = hook
            for other in later:
                if other in hooks:
                    hooks.move_to_end(other)


_asides: Notes[Aside] = Notes()


def _exchange(
    module: nn.Module,
    out: dict[str, dict[str, Any]],
    into: dict[str, dict[str, Any]],
    orders: dict[str, tuple[str, ...]],
) -> None:
    """Replace entries of the registries; a shallow copy may have the old ones."""
    state = module.__dict__
    for name in out.get("__dict__", ()):
        state.pop(name, None)
    state.update(into.get("__dict__", {}))
    for registry in _REGISTRIES:
        gone, order = out.get(registry, ()), orders.get(registry, ())
        entries = {k: v for k, v in state[registry].items() if k not in gone}
        entries |= into.get(registry, {})
        places = {name: i for i, name in enumerate(order)}
        ordered = sorted(entries.items(), key=lambda e: places.get(e[0], len(places)))
        state[registry] = dict(ordered)


def plain_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return a tensor of a module that is not computed."""
    tensor = module._parameters.get(name)
    return module._buffers.get(name) if tensor is None else tensor


def is_aside(module: nn.Module) -> bool:
    """Tell whether plain tensors stand in for some of a module."""
    return _standing(module) is not None


def _standing(module: nn.Module) -> Aside | None:
    """Return what a module gave up; an interruption may have left a note of no use."""
    aside = _asides.get(module)
    return None if aside is None or not aside.stands else aside


def set_aside(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Put plain tensors in the place of all that is computed, and return where.

    Nothing has changed if it fails.
    """
    found = [(m, sources) for m in modules if (sources := sources_of(m))]
    for module, sources in found:
        if is_aside(module):
            raise InvalidTensorError(
                f"`{path_of(module, sources[0].name)}` was parametrized while its "
                "module was folded. Unfold the model first."
            )
    plain: dict[int, Tensor] = {}
    with undisturbed():
        for module, source in (
            (m, source) for m, sources in found for source in sources
        ):
            if source.key not in plain:
                plain[source.key] = _plain(module, source)
    done: list[nn.Module] = []
    try:
        for module, sources in found:
            aside = Aside(module, [StandIn(s, plain[s.key]) for s in sources])
            done.append(module)
            _asides.put(module, aside)  # first: what is given up must not be lost
            aside.begin(module)
    except BaseException:
        put_back(done, discard=True)
        for module in done:
            _asides.drop(module)
        raise
    return done


def _plain(module: nn.Module, source: Source) -> Tensor:
    """Compute the value of a source, as a tensor of the originals' kind."""
    try:
        value = source.value()
    except Exception as error:
        error.add_note(f"while computing `{path_of(module, source.name)}`")
        note_sharded(error, source.originals())
        raise
    return like(decisive(source.originals()), value)


def put_back(modules: Iterable[nn.Module], *, discard: bool = False) -> None:
    """Put back what was set aside.

    A plain tensor that has another value by now is assigned through the right inverse,
    unless such changes are to be dropped. Nothing has changed if it fails.
    """
    asides = [(m, aside) for m in modules if (aside := _standing(m)) is not None]
    changed = [] if discard else [*_changes(asides)]
    guarded = [part for s, *_ in changed for part in s.source.guarded()]
    with Snapshot(guarded), undisturbed():
        pairs = [pair for change in changed for pair in _inverted(*change)]
    try:
        _commit(pairs, changed, asides)
    except BaseException:  # interrupted: once begun, it is done
        _commit(pairs, changed, asides)
        raise


def _commit(
    pairs: Iterable[tuple[Tensor, Tensor]],
    changed: Iterable[tuple[StandIn, Tensor, Where]],
    asides: Iterable[tuple[nn.Module, Aside]],
) -> None:
    for original, new in pairs:
        write(original, new)
    for s, *_ in changed:
        s.source.settle()
    for module, aside in asides:
        if aside.stands:
            aside.end(module)
        _asides.drop(module)


def _changes(
    asides: Iterable[tuple[nn.Module, Aside]],
) -> Iterator[tuple[StandIn, Tensor, Where]]:
    """Yield the plain tensors that have another value by now."""
    for module, aside in asides:
        for s in aside.stand_ins:
            where = partial(path_of, module, s.name)
            now = plain_tensor(module, s.name)
            if now is None or is_parametrized(module):
                raise InvalidTensorError(
                    f"`{where()}` was made plain for a while, and is "
                    f"{'gone' if now is None else 'in a parametrized module'} by now, "
                    "so there is no way back. Undo that first."
                )
            if s.is_changed(now):
                yield s, now, where


def _inverted(s: StandIn, now: Tensor, where: Where) -> list[tuple[Tensor, Tensor]]:
    if any(original.is_meta for original in s.source.originals()):
        raise InvalidTensorError(
            f"`{where()}` was folded on the meta device and has memory by now. Unfold "
            "the model before `to_empty`."
        )
    return s.source.inverted(now.detach().to(s.device, s.dtype), where)
