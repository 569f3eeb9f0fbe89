"""What is asked of a tensor that has no shape yet.

A lazy module (``nn.LazyLinear``) gets its parameters in the first forward, by a hook
of torch's that runs before it. A hook of ours comes after that one, and does then what
was asked before.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InvalidTensorError, path_of
from .checks import check_module
from .lost_writes import callers_depth
from .refinement import refine_hook

P = ParamSpec("P")
Step = Callable[[nn.Module], object]


class Report(NamedTuple):
    """What ``load_state_dict`` says is missing and unexpected, in all of a model.

    Torch tells no hook whether loading is strict. But it raises if it is and there is
    something to say: who has come past that has not asked for it.
    """

    prefix: str
    missing: Sequence[str]
    unexpected: Sequence[str]

    def is_lenient(self) -> bool:
        """Tell whether it is certain that loading was not to be strict."""
        return bool(self.missing or self.unexpected)

    def untold(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of its module that it does not have."""
        told = {*self.missing, *self.unexpected}
        return [key for key in keys if self.prefix + key not in told]


_NOTHING = Report("", (), ())


class Deferred:
    """A hook that waits for tensors, and then takes the steps that were put off.

    It is part of its module: it is copied and pickled with it, and goes when it is
    through. Steps that fail stay, so that no forward runs without them.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Step]] = []
        self.state: dict[str, Any] = {}
        self.assigns = False
        self.report = _NOTHING

    def keep(
        self,
        module: nn.Module,
        state: dict[str, Any],
        prefix: str,
        metadata: dict[str, Any],
        strict: bool,  # noqa: FBT001  # torch gives True, whatever it was given
        missing: list[str],
        unexpected: list[str],
        *_rest: object,
    ) -> None:
        """Keep what a state dict has for chains to come, until they are there.

        The tensors beside them are kept too, as torch initializes all at once, and
        would lose them. It is a hook on loading, before torch's, and what is loaded
        last counts. What is certainly missing is reported at once.
        """
        own = {name: prefix + name for name in own_tensors(module)}
        awaited = [f"{prefix}parametrizations.{name}." for name, _ in self.steps]
        chains = [key for key in state if key.startswith(tuple(awaited))]
        self.state, self.report = {}, Report(prefix, missing, unexpected)
        if not chains:
            return
        # a tensor without a shape can be copied, and not assigned: that comes later
        self.assigns = metadata.pop("assign_to_params_buffers", False)
        for chain in awaited:
            missing += _missing_originals(chain, state)
        for key in (*chains, *(key for key in own.values() if key in state)):
            value = state[key]
            self.state[key.removeprefix(prefix)] = (
                value.detach().clone() if isinstance(value, Tensor) else value
            )
        for name, key in own.items():
            chain = f"{prefix}parametrizations.{name}."
            there = key in state or any(key.startswith(chain) for key in chains)
            if there and is_uninitialized(module, name):
                state[key] = module._parameters.get(name, module._buffers.get(name))
        for key in chains:
            del state[key]

    def give(
        self, module: nn.Module, state: dict[str, Any], prefix: str, *_: object
    ) -> None:
        """Put what is kept into a state dict, as if it had been loaded by now."""
        for name in awaited(module):
            if any(key.startswith(f"parametrizations.{name}.") for key in self.state):
                del state[prefix + name]
        state.update((prefix + key, value) for key, value in self.state.items())

    def _load(self, module: nn.Module) -> str:
        """Load what was kept, and return what is new about how it does not fit.

        If it does not, and nothing tells that it need not, no forward runs without it.
        """
        kept, report, assigns = self.state, self.report, self.assigns
        try:
            missing, unexpected = module.load_state_dict(
                kept, strict=False, assign=assigns
            )
            own = (*own_tensors(module), "parametrizations")
            missing = [key for key in missing if key.partition(".")[0] in own]
            untold = report.untold(missing), report.untold(unexpected)
            told = f"Missing: {untold[0]}. Unexpected: {untold[1]}."
            if any(untold) and not report.is_lenient():
                raise InvalidTensorError(
                    f"The state dict that `{path_of(module)}` got before it had shapes "
                    f"does not fit. {told} Load one that does, or forget this one: "
                    "`model.load_state_dict({}, strict=False)`. `strict=False` leaves "
                    "such keys out if you load after the first forward."
                )
        except Exception:
            # `keep` has seen this load too
            self.state, self.report, self.assigns = kept, report, assigns
            raise
        return told if any(untold) else ""

    def __call__(self, module: nn.Module, _: object) -> None:
        """Take the steps whose tensors are there by now."""
        moved_before, told = _holds(module, refine_hook), ""
        ready = [each for each in self.steps if not is_uninitialized(module, each[0])]
        for name, step in ready:
            try:
                step(module)
            except Exception as error:
                error.add_note(
                    f"`{path_of(module, name)}` was to be parametrized as soon as it "
                    "had a shape, which it got in this forward"
                )
                raise
            self.steps.remove((name, step))
        if not self.steps:
            if self.state:
                told = self._load(module)
            self._leave(module)
        if not moved_before:
            refine_hook(module, ())  # torch has made its list of hooks without it
        if told:
            warnings.warn(
                f"The state dict that `{path_of(module)}` got before it had shapes was "
                f"loaded with `strict=False`, and does not fit. {told}",
                UserWarning,
                stacklevel=callers_depth(),
            )

    def _leave(self, module: nn.Module) -> None:
        loading: Any = module._load_state_dict_pre_hooks
        own: list[tuple[Any, list[int]]] = [
            (hooks, [key for key, hook in hooks.items() if _is_of(hook, self)])
            for hooks in (module._forward_pre_hooks, module._state_dict_hooks)
        ]
        own.append((loading, [k for k, h in loading.items() if _is_of(h.hook, self)]))
        for hooks, keys in own:
            for key in keys:
                del hooks[key]


def _missing_originals(chain: str, state: Mapping[str, Any]) -> list[str]:
    """Return which of several originals are not there although later ones are."""
    there = [
        key.removeprefix(chain + "original") for key in state if key.startswith(chain)
    ]
    last = max((int(key) for key in there if key.isdecimal()), default=0)
    names = [f"{chain}original{i}" for i in range(last)]
    return [name for name in names if name not in state]


def is_uninitialized(module: nn.Module, name: str) -> bool:
    """Tell whether a tensor of a module has no shape yet."""
    tensor = module._parameters.get(name)
    if tensor is None:
        tensor = module._buffers.get(name)
    return tensor is not None and is_lazy(tensor)


def defer(module: nn.Module, name: str, step: Step) -> nn.Module:
    """Take a step when a tensor has got its shape."""
    hook = _waiting(module)
    if hook is None:
        hook = Deferred()
        module.register_forward_pre_hook(hook)
        handle = module.register_load_state_dict_pre_hook(hook.keep)
        loading: Any = module._load_state_dict_pre_hooks
        loading.move_to_end(handle.id, last=False)
        module._register_state_dict_hook(hook.give)  # the public one takes functions
    hook.steps.append((name, step))
    return module


def is_awaited(module: nn.Module, name: str) -> bool:
    """Tell whether a step waits for a tensor."""
    return name in awaited(module)


def refuse_lazy(model: nn.Module, names: Callable[[nn.Module], Iterable[str]]) -> None:
    """Refuse a model where one of these tensors has no shape yet."""
    for prefix, module in model.named_modules():
        for name in names(module):
            if is_uninitialized(module, name):
                raise InvalidTensorError(
                    f"`{prefix}{prefix and '.'}{name}` is not initialized yet. Run a "
                    "batch through the model first."
                )


def awaited(module: nn.Module) -> list[str]:
    """Return the names of the tensors that steps wait for."""
    hook = _waiting(module)
    return [] if hook is None else [name for name, _ in hook.steps]


def own_tensors(module: nn.Module) -> list[str]:
    """Return the names of the parameters and the buffers of a module itself."""
    return [*module._parameters, *module._buffers]


def _waiting(module: nn.Module) -> Deferred | None:
    hooks = module._forward_pre_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, Deferred)), None)


def once_initialized(recipe: Callable[P, nn.Module]) -> Callable[P, nn.Module]:
    """Let a recipe, which looks at a shape, wait until there is one."""
    signature = inspect.signature(recipe)

    @functools.wraps(recipe)
    def recipe_or_later(*args: P.args, **kwargs: P.kwargs) -> nn.Module:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        choices: dict[str, Any] = dict(call.arguments)
        module, name = choices.pop("module"), choices["name"]
        check_module(module, recipe.__name__, name)
        if is_uninitialized(module, name):
            return defer(module, name, functools.partial(recipe_or_later, **choices))
        return recipe(*args, **kwargs)

    return recipe_or_later


def _is_of(function: object, hook: Deferred) -> bool:
    return getattr(function, "__self__", function) is hook


def _holds(module: nn.Module, hook: object) -> bool:
    return any(held is hook for held in module._forward_pre_hooks.values())
