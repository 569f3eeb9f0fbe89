"""Parametrizing a whole model by rules: first a dry run, then all or nothing."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from ..core.checks import check_module
from ..core.classes import is_parametrized
from ..core.deferral import defer, is_awaited
from ..core.equality import is_equal
from ..core.parametrization import Parametrization
from ..core.placement import attach
from ..errors import PlanError
from .rules import Rule, Rules, Site, read_rules, sites_of, specs
from .showing import aligned, in_one_line
from .trials import Step, prepared, tried


@dataclass(frozen=True)
class Plan:
    """What rules mean for a model: nothing has been done to it yet.

    Printed, it is a table. Make one with `plan`.

    Attributes:
        steps: one for each tensor that a rule names and that is not so already.
        problems: what keeps it from being carried out.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
        >>> plan = holdfast.plan(model, {"0.weight": maps.Symmetric()})
        >>> [(step.path, step.maps, step.before, step.after) for step in plan.steps]
        [('0.weight', 'Symmetric()', 9, 9)]
        >>> model = plan.apply()
        >>> holdfast.is_parametrized(model[0], "weight")
        True
    """

    steps: tuple[Step, ...]
    problems: tuple[str, ...]
    _model: nn.Module = field(repr=False)
    _rules: tuple[Rule, ...] = field(repr=False)
    _sites: tuple[tuple[Site, Rule], ...] = field(repr=False)

    def apply(self) -> nn.Module:
        """Parametrize all tensors of the plan, or none.

        Returns:
            The model.

        Raises:
            PlanError: the plan has problems, or a module was replaced or a tensor
                parametrized since.
            HoldfastError: the model has changed since, and a tensor does not fit.
        """
        if self.problems:
            raise PlanError("\n".join(("The plan has problems:", *self.problems)))
        for site, _ in self._sites:
            replaced = _module_at(self._model, site.prefix) is not site.module
            if replaced or is_parametrized(site.module, site.name):
                what = "the module was replaced" if replaced else "it was parametrized"
                raise PlanError(
                    f"`{site.path}`: {what} since the plan was made. "
                    "Make the plan again."
                )
        now = [(site, rule) for site, rule in self._sites if not site.is_uninitialized]
        attach([prepared(site, rule) for site, rule in now])
        for site, rule in self._sites:
            if site.is_uninitialized:
                step = partial(_place_later, site.prefix, site.name, rule)
                defer(site.module, site.name, step)
        return self._model

    def data(self) -> list[dict[str, object]]:
        """Return the rules as plain data, which `plan` takes back.

        Example:
            >>> import torch, holdfast
            >>> from holdfast import maps
            >>> layer = torch.nn.Linear(3, 3)
            >>> holdfast.plan(layer, {"weight": maps.Symmetric()}).data()
            [{'tensor': 'weight', 'maps': [{'map': 'Symmetric'}]}]
        """
        return [rule.data() for rule in self._rules]

    def __str__(self) -> str:
        head = ("tensor", "shape", "maps", "parameters", "ms", "moved")
        table = aligned([head, *map(_row, self.steps)])
        return "\n".join((table, *(f"! {problem}" for problem in self.problems)))


def plan(
    model: nn.Module,
    rules: Rules,
    *,
    also: Iterable[type[Parametrization]] = (),
) -> Plan:
    """Find out what rules mean for a model, without changing it.

    Each tensor that a rule names is tried on a copy: what the maps refuse, how far the
    value will move and what one evaluation costs is known before anything is done.
    `Plan.apply` does it.

    Args:
        model: any module.
        rules: maps by pattern. A pattern is a glob on the tensor's path
            (``"encoder.*.weight"``, where ``*`` crosses dots), a compiled regular
            expression for all of it, a type of module for its ``weight``, or a pair of
            these for the module and the tensor (``(nn.LSTM, "weight_hh_*")``). Its
            value is a map, of which every tensor gets a copy; several in their order,
            registered together, so that a value which all of them reach stays; or
            ``None``, which leaves the tensors alone whatever other rules say. Data that
            `Plan.data` and `spec` give are rules too.
        also: classes of your own that such data may name.

    Returns:
        The plan. A tensor that has these very maps already is left out.

    Raises:
        PlanError: the rules cannot be read.

    Example:
        >>> import torch, holdfast
        >>> from holdfast import maps
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Linear(4, 4))
        >>> rules = {torch.nn.Conv2d: maps.WeightNorm(), "1.weight": maps.Skew()}
        >>> [step.path for step in holdfast.plan(model, rules).steps]
        ['0.weight', '1.weight']
    """
    check_module(model, "plan")
    read = read_rules(rules, also)
    found, problems = _match(model, read)
    steps = [tried(site, rule) for site, rule in found]
    problems += [f"`{step.path}`: {step.problem}" for step in steps if step.problem]
    return Plan(tuple(steps), tuple(problems), model, read, tuple(found))


def spec(model: nn.Module) -> list[dict[str, object]]:
    """Return what is parametrized in a model, as rules that `plan` takes.

    Raises:
        PlanError: a map has no spec, as an ``nn.Module`` of your own or of torch's.

    Example:
        >>> import torch, holdfast
        >>> model = torch.nn.Sequential(holdfast.weight_norm(torch.nn.Linear(2, 3)))
        >>> holdfast.spec(model)
        [{'tensor': '0.weight', 'maps': [{'map': 'WeightNorm', 'dim': 0}]}]
        >>> other = torch.nn.Sequential(torch.nn.Linear(2, 3))
        >>> _ = holdfast.plan(other, holdfast.spec(model)).apply()
    """
    check_module(model, "spec")
    return [
        {"tensor": glob.escape(site.path), "maps": specs([*chain])}
        for site in sites_of(model)
        if (chain := site.chain) is not None
    ]


def _match(
    model: nn.Module, rules: Sequence[Rule]
) -> tuple[list[tuple[Site, Rule]], list[str]]:
    """Return which rule each tensor follows, and what is wrong with the rules."""
    found, problems, idle = list[tuple[Site, Rule]](), list[str](), {*rules}
    for sites in _grouped(model).values():
        fitting = [rule for rule in rules if any(map(rule.fits, sites))]
        idle -= {*fitting}
        if fitting and all(rule.maps is not None for rule in fitting):
            problem = _conflict(sites, fitting)
            if problem:
                problems.append(problem)
            elif sites[0].chain is None:
                found.append((sites[0], fitting[0]))
    problems += [f"The rule `{r}` names no tensor." for r in rules if r in idle]
    return found, problems


def _grouped(model: nn.Module) -> dict[int, list[Site]]:
    """Return the places of each tensor: tied ones and shared modules have several."""
    groups = dict[int, list[Site]]()
    for site in sites_of(model):
        tensor = site.chain or site.module._parameters[site.name]
        groups.setdefault(id(tensor), []).append(site)
    return groups


def _module_at(model: nn.Module, prefix: str) -> nn.Module | None:
    try:
        return model.get_submodule(prefix)
    except AttributeError:
        return None


def _conflict(sites: Sequence[Site], fitting: Sequence[Rule]) -> str:
    """Say why a tensor cannot follow its rules; nothing if it can."""
    path, chain = sites[0].path, sites[0].chain
    if len(fitting) > 1:
        named = " and ".join(f"`{rule}`" for rule in fitting)
        return (
            f"`{path}`: the rules {named} both name it. Make them narrower, or give "
            "None to one that leaves it alone."
        )
    if len({(id(site.module), site.name) for site in sites}) > 1:
        others = ", ".join(f"`{site.path}`" for site in sites[1:])
        return (
            f"`{path}`: is tied to {others}, and would come apart. Untie them, or "
            "leave them alone by a rule of None."
        )
    if chain is not None and not is_equal([*chain], [*(fitting[0].maps or ())]):
        return (
            f"`{path}`: is parametrized already, by {in_one_line([*chain])}. Remove "
            "that first, or leave it alone by a rule of None."
        )
    if is_awaited(sites[0].module, sites[0].name):
        return (
            f"`{path}`: is to be parametrized in the first forward already. Run a "
            "batch, or leave it alone by a rule of None."
        )
    return ""


def _place_later(prefix: str, name: str, rule: Rule, module: nn.Module) -> None:
    """Parametrize a tensor of a lazy module, which has its shape by now."""
    tensor = module._parameters[name]
    assert tensor is not None
    attach([prepared(Site(prefix, module, name), rule.on(tensor.device))])


def _row(step: Step) -> tuple[str, ...]:
    if step.shape is None:
        return step.path, "not yet known", step.maps, "", "", ""
    shape = " x ".join(map(str, step.shape))
    if step.problem:
        return step.path, shape, step.maps, f"{step.before:,}", "", ""
    changed = "" if step.after == step.before else f" -> {step.after:,}"
    cost = "" if step.milliseconds is None else f"{step.milliseconds:.3g}"
    moved = "" if step.moved is None else f"{step.moved:.2g}"
    return step.path, shape, step.maps, f"{step.before:,}{changed}", cost, moved
