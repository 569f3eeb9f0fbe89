"""Random histories: a module is always in the state that its history implies.

`Histories` does to a pool of modules what programs do, in random order, and tells each
step to a `Record` beside the module, which knows no parametrizations: it keeps plain
tensors and unregistered maps, and computes from them what the module must show.

A few hundred histories run by default; ``HOLDFAST_SEQUENCES=10000 pytest
tests/test_stateful.py`` runs as many as one likes.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
from types import SimpleNamespace

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

import holdfast
from support import Halves, OneWay, Symmetric, hooks_of, state_of

SEQUENCES = int(os.environ.get("HOLDFAST_SEQUENCES", "200"))
STEPS = 12
RATE = 0.25


@pytest.fixture(scope="module", autouse=True)
def _fewer_objects():
    """Leave what other tests have loaded out of what registrations look through."""
    gc.collect()
    gc.freeze()


class Host(nn.Module):
    """Two parameters and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.bias = nn.Parameter(torch.zeros(2))
        self.register_buffer("table", torch.zeros(2, 2))


HOSTS = {
    "host": Host,
    "linear": lambda: nn.Linear(2, 2),
    "recurrent": lambda: nn.RNN(2, 2, bias=False),
}


class Double(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X * 2

    def right_inverse(self, W: Tensor) -> Tensor:
        return W / 2


class Normed(nn.Module):
    """Its right inverse moves its own state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, X: Tensor) -> Tensor:
        return X * self.factor

    def right_inverse(self, W: Tensor) -> Tensor:
        self.factor.copy_(W.abs().amax().clamp_min(1.0))
        return W / self.factor


class Fails(Normed):
    """Moves its state, and then fails at one stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, X: Tensor) -> Tensor:
        if self.stage == "forward":
            raise ArithmeticError(self.stage)
        return {"shape": X[:1], "dtype": X.double()}.get(self.stage, X)

    def right_inverse(self, W: Tensor) -> Tensor:
        X = super().right_inverse(W)
        if self.stage == "right_inverse":
            raise ArithmeticError(self.stage)
        return {"nan": X * float("nan"), "inverse dtype": X.double()}.get(self.stage, X)


STAGES = ["forward", "right_inverse", "shape", "dtype", "nan", "inverse dtype"]
LINKS = {
    "double": Double,
    "symmetric": Symmetric,
    "one way": OneWay,
    "halves": Halves,
    "normed": Normed,
    "built-in": holdfast.maps.Symmetric,
}
COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
}
BAD_VALUES = {
    "shape": lambda tensor: torch.zeros(3, 2),
    "dtype": lambda tensor: tensor.double(),
    "device": lambda tensor: tensor.to("meta"),
    "none": lambda tensor: None,
}


def draw(seed: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one - other).abs().max() <= 1e-4 * (1 + other.abs().max()))


def is_symmetric(W: Tensor) -> bool:
    return W.ndim == 2 and torch.allclose(W, W.mT, rtol=1e-5, atol=1e-5)


class Unreachable(Exception):
    """The record says that this cannot be done."""


class Record:
    """What the history of one module implies, told without parametrizations."""

    def __init__(self, module: nn.Module) -> None:
        self.base = type(module)
        self.parameters = [*module._parameters]
        self.order = [*module._parameters, *module._buffers]
        self.plain = {n: getattr(module, n).detach().clone() for n in self.order}
        self.chains: dict[str, tuple[list[Tensor], list[nn.Module]]] = {}
        self.foreign = False  # torch has moved tensors to the end, as it does

    def value(self, name: str) -> Tensor:
        if name in self.plain:
            return self.plain[name]
        tensors, links = self.chains[name]
        for link in links:
            tensors = [link(*tensors)]
        return tensors[0]

    def originals(self) -> dict[str, Tensor]:
        """Return all that is trained."""
        named = {n: self.plain[n] for n in self.order if n in self.plain}
        for name, (tensors, _) in self.chains.items():
            for i, tensor in enumerate(tensors):
                index = "" if len(tensors) == 1 else str(i)
                named[f"parametrizations.{name}.original{index}"] = tensor
        return {k: t for k, t in named.items() if self.is_parameter(k)}

    def links(self) -> tuple[type, list[tuple[str, list[type]]]]:
        """Return all that must agree where a state dict is to fit."""
        kinds = [(n, [*map(type, links)]) for n, (_, links) in self.chains.items()]
        return self.base, kinds

    def is_parameter(self, key: str) -> bool:
        parts = key.split(".")
        return parts[len(parts) // 2] in self.parameters

    def inverse(self, link: nn.Module, value: Tensor, *, assigning: bool) -> object:
        if isinstance(link, holdfast.Parametrization):
            if assigning and not is_symmetric(value):
                raise Unreachable
            value = (value + value.mT) / 2
        if isinstance(link, OneWay):
            if assigning:
                raise Unreachable
            return value
        return link.right_inverse(value)

    def register(self, name: str, link: nn.Module) -> None:
        shaped = isinstance(link, (Symmetric, holdfast.Parametrization))
        if shaped and self.value(name).ndim < 2:
            raise Unreachable
        if name in self.chains:
            if isinstance(link, Halves):
                raise Unreachable
            self.chains[name][1].append(link)
            return
        new = self.inverse(link, self.plain[name], assigning=False)
        del self.plain[name]
        tensors = [new] if isinstance(new, Tensor) else [*new]
        self.chains[name] = ([t.clone() for t in tensors], [link])

    def assign(self, name: str, value: Tensor) -> None:
        trial = copy.deepcopy(self.chains[name][1])
        for link in reversed(trial):
            value = self.inverse(link, value, assigning=True)
        new = [value] if isinstance(value, Tensor) else [*value]
        self.chains[name] = ([t.clone() for t in new], trial)

    def remove(self, name: str, *, leave: bool) -> None:
        tensors, _ = self.chains[name]
        if not leave and len(tensors) > 1:
            raise Unreachable
        value = self.value(name) if leave else tensors[0]
        del self.chains[name]
        self.plain[name] = value.detach().clone()

    def train(self, names: list[str]) -> None:
        originals = self.originals()
        for tensor in originals.values():
            tensor.requires_grad_(True)
        loss = sum(slope(self.value(name)) for name in names)
        grads = torch.autograd.grad(loss, [*originals.values()], allow_unused=True)
        with torch.no_grad():
            for tensor, grad in zip(originals.values(), grads, strict=True):
                tensor.requires_grad_(False)
                if grad is not None:
                    tensor -= RATE * grad


def slope(value: Tensor) -> Tensor:
    """A loss that is different in every entry."""
    weights = torch.arange(1.0, value.numel() + 1).view(value.shape) / 8
    return (weights * value).sum()


class Entry:
    """A module, its record, and an optimizer as old as the module."""

    def __init__(self, module: nn.Module, record: Record) -> None:
        self.module = module
        self.record = record
        tensors = {name: self.tensor(name) for name in record.order}
        # what must stay the same object
        self.kept = {k: tensor for k, tensor in tensors.items() if tensor is not None}
        self.renew()

    def renew(self) -> None:
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=RATE)

    def tensor(self, name: str) -> Tensor | None:
        """Return the plain tensor, or the original where there is one."""
        if name in self.record.plain:
            return getattr(self.module, name)
        tensors, _ = self.record.chains[name]
        chain = self.module.parametrizations[name]
        return chain.original if len(tensors) == 1 else None


ENTRY = st.integers(0, 3)
NAME = st.integers(0, 5)
SEED = st.integers(0, 20)
KIND = st.sampled_from([*LINKS])


def some_parametrized(machine: Histories) -> bool:
    return any(entry.record.chains for entry in machine.pool)


class Histories(RuleBasedStateMachine):
    """Does what programs do, and compares with what the records say."""

    library = holdfast
    copies = COPIES

    @initialize(
        kinds=st.lists(st.sampled_from([*HOSTS]), min_size=1, max_size=2),
        links=st.lists(st.tuples(ENTRY, NAME, KIND), min_size=1, max_size=3),
    )
    def start(self, kinds: list[str], links: list[tuple[int, int, str]]) -> None:
        self.pool: list[Entry] = []
        self.scope = contextlib.ExitStack()
        self.inside = False
        for number, kind in enumerate(kinds):
            module = HOSTS[kind]()
            for i, tensor in enumerate([*module.parameters(), *module.buffers()]):
                tensor.data.copy_(draw(10 * number + i, tensor))
            self.pool.append(Entry(module, Record(module)))
        for entry, name, kind in links:
            self.append(entry, name, kind)

    def teardown(self) -> None:
        self.scope.close()

    def choose(self, entry: int, name: int = 0) -> tuple[Entry, nn.Module, str]:
        chosen = self.pool[entry % len(self.pool)]
        order = chosen.record.order
        return chosen, chosen.module, order[name % len(order)]

    def parametrized(self, entry: int, name: int) -> tuple[Entry, nn.Module, str]:
        found = [(e, e.module, n) for e in self.pool for n in e.record.chains]
        return found[(4 * name + entry) % len(found)]

    def expect(self, entry: Entry, implied: object, act: object) -> None:
        """Do what the record says is possible; what is not must change nothing."""
        trial = copy.deepcopy(entry.record)
        try:
            implied(trial)
        except Unreachable:
            before = state_of(entry.module)
            with pytest.raises((ValueError, RuntimeError, TypeError, IndexError)):
                act()
            assert state_of(entry.module) == before, "a failure left a trace"
        else:
            act()
            entry.record = trial

    # -- registering ------------------------------------------------------------

    @rule(entry=ENTRY, name=NAME, kind=KIND)
    def register(self, entry: int, name: int, kind: str) -> None:
        self.append(entry, name, kind)

    def append(self, entry: int, name: int, kind: str) -> None:
        chosen, module, tensor = self.choose(entry, name)
        links = chosen.record.chains.get(tensor, ([], []))[1]
        if len(links) == 3 or (links and kind == "normed"):
            return
        self.expect(
            chosen,
            lambda record: record.register(tensor, LINKS[kind]()),
            lambda: self.library.register_parametrization(
                module, tensor, LINKS[kind]()
            ),
        )
        if len(chosen.record.chains.get(tensor, ([], []))[0]) > 1:
            chosen.kept.pop(tensor, None)

    @rule(entry=ENTRY, name=NAME, stage=st.sampled_from(STAGES))
    def register_failing(self, entry: int, name: int, stage: str) -> None:
        _, module, tensor = self.choose(entry, name)
        link = Fails(stage)
        before = state_of(module), state_of(link)
        with pytest.raises((ArithmeticError, ValueError)):
            self.library.register_parametrization(module, tensor, link)
        assert (state_of(module), state_of(link)) == before, "a failure left a trace"

    # -- assigning --------------------------------------------------------------

    @precondition(some_parametrized)
    @rule(entry=ENTRY, name=NAME, seed=SEED, symmetric=st.booleans())
    def assign(self, entry: int, name: int, seed: int, symmetric: bool) -> None:
        chosen, module, tensor = self.parametrized(entry, name)
        value = draw(seed, chosen.record.value(tensor))
        if symmetric and value.ndim == 2:
            value = value + value.mT
        held = value.clone()
        self.expect(
            chosen,
            lambda record: record.assign(tensor, value),
            lambda: setattr(module, tensor, value),
        )
        assert value.equal(held)

    @precondition(some_parametrized)
    @rule(entry=ENTRY, name=NAME, kind=st.sampled_from([*BAD_VALUES]))
    def assign_wrongly(self, entry: int, name: int, kind: str) -> None:
        chosen, module, tensor = self.parametrized(entry, name)
        before = state_of(module)
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            setattr(module, tensor, BAD_VALUES[kind](chosen.record.value(tensor)))
        assert state_of(module) == before, "a failure left a trace"

    # -- removing ---------------------------------------------------------------

    @precondition(some_parametrized)
    @rule(entry=ENTRY, name=NAME, leave=st.booleans(), by_torch=st.booleans())
    def remove(self, entry: int, name: int, leave: bool, by_torch: bool) -> None:
        chosen, module, tensor = self.parametrized(entry, name)
        library = torch_parametrize if by_torch else self.library
        chosen.record.foreign |= by_torch
        self.expect(
            chosen,
            lambda record: record.remove(tensor, leave=leave),
            lambda: library.remove_parametrizations(module, tensor, leave),
        )
        if tensor not in chosen.kept and tensor in chosen.record.plain:
            chosen.kept[tensor] = chosen.tensor(tensor)
            if by_torch:  # which tells nobody of the parameter that it made
                chosen.renew()

    # -- copying ----------------------------------------------------------------

    @rule(entry=ENTRY, how=st.sampled_from([*COPIES]))
    def copy(self, entry: int, how: str) -> None:
        chosen, module, _ = self.choose(entry)
        twin = Entry(self.copies[how](module), copy.deepcopy(chosen.record))
        self.pool = [*self.pool[-3:], twin]

    @rule(entry=ENTRY, name=NAME, kind=st.sampled_from(["double", "one way"]))
    def change_a_shallow_copy(self, entry: int, name: int, kind: str) -> None:
        chosen, module, tensor = self.choose(entry, name)
        before = state_of(module)
        twin = copy.copy(module)
        value = chosen.record.value(tensor)
        assert close(getattr(twin, tensor), value)
        self.library.register_parametrization(twin, tensor, LINKS[kind]())
        self.library.remove_parametrizations(twin, tensor)
        twice = 2 * value if tensor in chosen.record.chains else value
        expected = value.tanh() if kind == "one way" else twice
        assert close(getattr(twin, tensor), expected)
        assert state_of(module) == before, "changing a copy changed the original"

    @rule(entry=ENTRY, back=st.booleans())
    def load(self, entry: int, back: bool) -> None:
        """Load the state of one module into the one after it, or the reverse."""
        pair = self.choose(entry)[0], self.choose(entry + 1)[0]
        source, target = reversed(pair) if back else pair
        if source.record.links() != target.record.links():
            return
        target.module.load_state_dict(source.module.state_dict())
        record = copy.deepcopy(source.record)
        target.record.plain, target.record.chains = record.plain, record.chains

    # -- training and writing ---------------------------------------------------

    @rule(entry=ENTRY)
    def train(self, entry: int) -> None:
        chosen, module, _ = self.choose(entry)
        self.library.swap_parameters(chosen.optimizer)
        held = [p for group in chosen.optimizer.param_groups for p in group["params"]]
        assert sorted(map(id, held)) == sorted(map(id, module.parameters()))
        names = chosen.record.parameters
        chosen.optimizer.zero_grad()
        sum(slope(getattr(module, name)) for name in names).backward()
        chosen.optimizer.step()
        chosen.record.train(names)

    @precondition(some_parametrized)
    @rule(entry=ENTRY, name=NAME, unseen=st.booleans())
    def write_to_an_original(self, entry: int, name: int, unseen: bool) -> None:
        chosen, module, tensor = self.parametrized(entry, name)
        chain, (tensors, _) = (
            module.parametrizations[tensor],
            chosen.record.chains[tensor],
        )
        original = chain.original if len(tensors) == 1 else chain.original0
        with torch.no_grad():
            (original.data if unseen and not self.inside else original).mul_(0.5)
            tensors[0].mul_(0.5)

    @precondition(some_parametrized)
    @rule(entry=ENTRY, name=NAME)
    def edit_the_list(self, entry: int, name: int) -> None:
        chosen, module, tensor = self.parametrized(entry, name)
        chain, links = module.parametrizations[tensor], chosen.record.chains[tensor][1]
        if len(links) > 1:
            del chain[-1]
            links.pop()
        else:
            chain.append(Double())
            links.append(Double())

    @rule()
    def enter_or_leave_a_scope(self) -> None:
        if self.inside:
            self.scope.close()
        else:
            self.scope.enter_context(self.library.cached())
        self.inside = not self.inside

    @rule(entry=ENTRY, mode=st.booleans())
    def switch_mode(self, entry: int, mode: bool) -> None:
        self.choose(entry)[1].train(mode)

    # -- what must hold after every step ----------------------------------------

    @invariant()
    def every_module_is_what_its_history_implies(self) -> None:
        memory: set[int] = set()
        for entry in self.pool:
            self.check_structure(entry.module, entry.record)
            check_values(entry.module, entry.record)
            for name, tensor in entry.kept.items():
                assert entry.tensor(name) is tensor, f"{name} is another object"
            own = [*entry.module.parameters(), *entry.module.buffers()]
            addresses = {tensor.data_ptr() for tensor in own}
            assert len(addresses) == len(own), "tensors of a module share memory"
            assert not addresses & memory, "modules share memory"
            memory |= addresses

    def check_structure(self, module: nn.Module, record: Record) -> None:
        if record.chains:
            assert type(module).__name__ == f"Parametrized{record.base.__name__}"
            assert type(module).__bases__ == (record.base,)
        else:
            assert type(module) is record.base
            assert not any(hooks_of(module).values())
        assert self.library.type_before_parametrizations(module) is record.base
        assert self.library.is_parametrized(module) is bool(record.chains)
        for name in record.order:
            present = self.library.is_parametrized(module, name)
            assert present is (name in record.chains)
        for name, (tensors, links) in record.chains.items():
            chain = module.parametrizations[name]
            assert [type(link) for link in chain] == [type(link) for link in links]
            assert chain.is_tensor is (len(tensors) == 1)
        names = [name for name, _ in module.named_parameters()]
        expected = [*record.originals()]
        if record.foreign:
            names, expected = sorted(names), sorted(expected)
        assert names == expected
        assert all(p.requires_grad for p in module.parameters())


def check_values(module: nn.Module, record: Record) -> None:
    values = {name: record.value(name) for name in record.order}
    for name, value in values.items():
        assert close(getattr(module, name), value), f"{name} has another value"
        with torch.no_grad():
            for _ in range(2):
                assert close(getattr(module, name), value), f"{name} is not current"
        if name in record.plain:
            registry = "_parameters" if name in record.parameters else "_buffers"
            assert getattr(module, registry)[name] is getattr(module, name)
    x = torch.ones(1, 2)
    if isinstance(module, nn.Linear):
        assert close(module(x), x @ values["weight"].mT + values["bias"])
    elif isinstance(module, nn.RNN):
        read, recurrent = values["weight_ih_l0"].mT, values["weight_hh_l0"].mT
        hidden = (x @ read).tanh()
        hidden = (x @ read + hidden @ recurrent).tanh()
        assert close(module(x.expand(2, 2))[0][1:], hidden)


def run(machine: type[Histories], sequences: int, **options: object) -> None:
    settings = hypothesis.settings(
        max_examples=sequences,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[*hypothesis.HealthCheck],
        **options,
    )
    run_state_machine_as_test(machine, settings=settings)


def test_A1_no_history_leaves_a_module_in_a_state_it_does_not_explain():
    run(Histories, SEQUENCES)


# ---- Negative controls: with a fault in the library, the same histories fail ---------


def moves_on_failure(module: nn.Module, name: str, link: nn.Module) -> nn.Module:
    try:
        return holdfast.register_parametrization(module, name, link)
    except Exception:
        next(module.parameters()).data.mul_(1 + 1e-6)
        raise


def reorders(module: nn.Module, name: str, leave: bool = True) -> nn.Module:
    holdfast.remove_parametrizations(module, name, leave)
    registry = module._parameters if name in module._parameters else module._buffers
    registry[name] = registry.pop(name)
    return module


def shares(module: nn.Module) -> nn.Module:
    memo = {id(parameter): parameter for parameter in module.parameters()}
    return copy.deepcopy(module, memo)


def new_parameter(module: nn.Module, name: str, leave: bool = True) -> nn.Module:
    holdfast.remove_parametrizations(module, name, leave)
    if name in module._parameters:
        module._parameters[name] = nn.Parameter(getattr(module, name).detach())
    return module


class StaleScope(contextlib.AbstractContextManager):
    """Serves what was first read inside, whatever happens."""

    def __enter__(self) -> None:
        self.before, seen = holdfast.ParametrizationList.evaluate, {}

        def evaluate(chain: nn.Module) -> Tensor:
            return seen.setdefault(id(chain), self.before(chain))

        holdfast.ParametrizationList.evaluate = evaluate

    def __exit__(self, *_: object) -> None:
        holdfast.ParametrizationList.evaluate = self.before


FAULTS = {
    "a failed registration moves a value": {
        "register_parametrization": moves_on_failure
    },
    "removal changes the order": {"remove_parametrizations": reorders},
    "removal makes a new parameter": {"remove_parametrizations": new_parameter},
    "copies share parameters": {"copy": shares},
    "a scope serves stale values": {"cached": StaleScope},
    "optimizers are not rebound": {"swap_parameters": lambda optimizer: None},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_A1_negative_control_a_faulty_library_is_found_out(fault):
    functions = {name: getattr(holdfast, name) for name in holdfast.__all__}
    functions |= {k: v for k, v in FAULTS[fault].items() if k != "copy"}
    copied = FAULTS[fault].get("copy")

    class Faulty(Histories):
        library = SimpleNamespace(**functions)
        copies = COPIES if copied is None else dict.fromkeys(COPIES, copied)

    phases = [hypothesis.Phase.generate]
    with pytest.raises(AssertionError):
        run(Faulty, 300, phases=phases, report_multiple_bugs=False)
