"""Rules for a whole model: a dry run that changes nothing, then all or nothing."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from holdfast import Parametrization, maps, sets
from holdfast.errors import PlanError, SpecError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.conv = nn.Conv2d(1, 4, 3)
        self.rnn = nn.LSTM(4, 3, num_layers=2)
        self.head = nn.Linear(3, 2)


def state_of(model: nn.Module) -> list[tuple[str, int, Tensor]]:
    return [(name, id(p), p.detach().clone()) for name, p in model.named_parameters()]


def assert_unchanged(model: nn.Module, before: list[tuple[str, int, Tensor]]) -> None:
    assert [each[:2] for each in state_of(model)] == [each[:2] for each in before]
    for (_, _, new), (_, _, old) in zip(state_of(model), before, strict=True):
        assert torch.equal(new, old)
    for module in model.modules():
        assert not type(module).__name__.startswith("Parametrized")


ENCODER = ["encoder.0.weight", "encoder.1.weight", "encoder.2.weight"]
HIDDEN = ["rnn.weight_hh_l0", "rnn.weight_hh_l1"]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("encoder.*.weight", ENCODER),
        ("encoder.1.weight", ENCODER[1:2]),
        ("*.weight", [*ENCODER, "conv.weight", "head.weight"]),
        (re.compile(r"encoder\.[02]\.weight"), ENCODER[::2]),
        (nn.Conv2d, ["conv.weight"]),
        (nn.Linear, [*ENCODER, "head.weight"]),
        (("rnn", "weight_hh_*"), HIDDEN),
        ((nn.LSTM, "weight_hh_*"), HIDDEN),
        ((nn.RNNBase, re.compile("weight_hh_l1")), HIDDEN[1:]),
        (("encoder.*", "weight"), ENCODER),
        (nn.Module, [*ENCODER, "conv.weight", "head.weight"]),
    ],
    ids=str,
)
def test_a_pattern_names_tensors(pattern, paths):
    plan = holdfast.plan(Net(), {pattern: maps.WeightNorm()})
    assert [step.path for step in plan.steps] == paths
    assert plan.problems == ()


def test_a_regular_expression_has_to_match_the_whole_path():
    plan = holdfast.plan(Net(), {re.compile("encoder"): maps.WeightNorm()})
    assert plan.steps == ()
    assert plan.problems == ("The rule `/encoder/` names no tensor.",)


def test_the_root_module_is_named_by_an_empty_path():
    plan = holdfast.plan(nn.Linear(3, 3), {("", "weight"): maps.Symmetric()})
    assert [step.path for step in plan.steps] == ["weight"]


def test_a_dry_run_changes_nothing_and_draws_no_random_numbers():
    model = Net()
    before = state_of(model)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    holdfast.plan(
        model, {nn.Linear: maps.SpectralNorm(), "conv.weight": maps.Softplus()}
    )
    assert torch.equal(torch.rand(3), expected)
    assert_unchanged(model, before)


def test_a_step_says_what_registration_will_do():
    model = Net()
    rules = {
        "encoder.0.weight": [maps.Skew(), maps.Cayley()],
        nn.Conv2d: maps.WeightNorm(),
    }
    first, second = holdfast.plan(model, rules).steps
    assert (first.shape, first.before, first.after) == ((4, 4), 16, 16)
    assert (second.shape, second.before, second.after) == ((4, 1, 3, 3), 36, 40)
    assert first.maps == "Skew(), Cayley()"
    assert second.moved == 0
    assert first.milliseconds > 0
    W = model.encoder[0].weight.detach()
    distance = (sets.Orthogonal().project(W) - W).norm() / W.norm()
    assert first.moved == pytest.approx(float(distance), rel=1e-5)


def test_apply_registers_copies_of_the_maps():
    model, map_ = Net(), maps.ThinOrthogonal()
    assert holdfast.plan(model, {"encoder.*.weight": map_}).apply() is model
    chains = [layer.parametrizations.weight for layer in model.encoder]
    assert len({id(chain[0]) for chain in chains} | {id(map_)}) == 4
    for layer in model.encoder:
        Q = layer.weight
        assert_close(Q.T @ Q, torch.eye(4), atol=1e-6, rtol=0)


def test_apply_does_what_registrations_one_by_one_do():
    model = Net()
    twin = copy.deepcopy(model)
    rules = {
        "encoder.*.weight": maps.ThinOrthogonal(),
        ("rnn", "weight_hh_*"): maps.WeightNorm(),
    }
    holdfast.plan(model, rules).apply()
    for layer in twin.encoder:
        holdfast.register_parametrization(layer, "weight", maps.ThinOrthogonal())
    for name in ("weight_hh_l0", "weight_hh_l1"):
        holdfast.weight_norm(twin.rnn, name)
    assert str(model) == str(twin)
    assert_close(
        dict(model.state_dict()), dict(twin.state_dict()), rtol=1e-6, atol=1e-6
    )
    assert [n for n, _ in model.named_parameters()] == [
        n for n, _ in twin.named_parameters()
    ]
    x = torch.randn(5, 1, 4)
    assert_close(model.rnn(x)[0], twin.rnn(x)[0])


def test_maps_that_are_registered_together_keep_a_value_that_all_of_them_reach():
    model = Net()
    Q = nn.init.orthogonal_(model.encoder[0].weight).detach().clone()
    holdfast.plan(model, {"encoder.0.weight": [maps.Skew(), maps.Cayley()]}).apply()
    assert_close(model.encoder[0].weight, Q)


def test_an_optimizer_is_bound_again_after_apply():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    holdfast.plan(model, {nn.Conv2d: maps.WeightNorm()}).apply()
    holdfast.swap_parameters(optimizer)
    ours = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for p in model.parameters()}


def test_a_module_in_eval_gets_maps_in_eval():
    model = Net().eval()
    holdfast.plan(model, {nn.Conv2d: maps.SpectralNorm()}).apply()
    assert not model.conv.parametrizations.weight[0].training


def test_none_leaves_tensors_alone_whatever_other_rules_say():
    rules = {nn.Linear: maps.WeightNorm(), "head.weight": None}
    plan = holdfast.plan(Net(), rules)
    assert [step.path for step in plan.steps] == ENCODER
    assert plan.problems == ()


def test_conflicts_are_reported_and_refused():
    model = Net()
    before = state_of(model)
    plan = holdfast.plan(
        model, {nn.Linear: maps.WeightNorm(), "head.*": maps.Softplus()}
    )
    assert len(plan.problems) == 1
    assert (
        "`head.weight`: the rules `Linear, weight` and `head.*` both"
        in plan.problems[0]
    )
    with pytest.raises(PlanError, match=r"`head\.weight`"):
        plan.apply()
    assert_unchanged(model, before)


def test_a_rule_that_names_nothing_is_reported_and_refused():
    plan = holdfast.plan(Net(), {"encodre.*.weight": maps.WeightNorm()})
    assert plan.problems == ("The rule `encodre.*.weight` names no tensor.",)
    with pytest.raises(PlanError, match=r"`encodre\.\*\.weight` names no tensor"):
        plan.apply()


def test_what_a_map_refuses_is_reported_with_the_path():
    model = Net()
    before = state_of(model)
    rules = {"encoder.0.weight": maps.Symmetric(), "head.weight": maps.Symmetric()}
    plan = holdfast.plan(model, rules)
    assert [bool(step.problem) for step in plan.steps] == [False, True]
    (problem,) = plan.problems
    assert problem.startswith("`head.weight`: ")
    assert "(2, 3)" in problem
    with pytest.raises(PlanError):
        plan.apply()
    assert_unchanged(model, before)


def test_a_domain_is_checked_within_a_chain():
    plan = holdfast.plan(Net(), {"encoder.0.weight": [maps.Softplus(), maps.Cayley()]})
    assert "SkewSymmetric" in plan.problems[0] or "skew" in plan.problems[0].lower()


def test_apply_is_all_or_nothing_when_the_model_has_changed_since():
    model = Net()
    plan = holdfast.plan(
        model, {nn.Linear: maps.WeightNorm(), "conv.weight": maps.Softplus()}
    )
    del model.conv.weight
    before = state_of(model)
    with pytest.raises(ValueError, match=r"`conv\.weight`"):
        plan.apply()
    assert_unchanged(model, before)


def test_apply_is_all_or_nothing_when_it_is_interrupted(monkeypatch):
    model = Net()
    plan = holdfast.plan(model, {nn.Linear: maps.WeightNorm()})
    before, calls = state_of(model), []
    real = holdfast.core.recurrent.release

    def interrupted(module):
        calls.append(module)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(module)

    monkeypatch.setattr(holdfast.core.recurrent, "release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.apply()
    assert len(calls) == 3
    assert_unchanged(model, before)


def test_a_tensor_that_has_these_maps_already_is_left_out():
    model, rules = Net(), {"encoder.*.weight": maps.WeightNorm()}
    holdfast.plan(model, rules).apply()
    again = holdfast.plan(model, rules)
    assert again.steps == again.problems == ()
    assert again.apply() is model


def test_a_tensor_that_has_other_maps_is_reported():
    model = Net()
    holdfast.plan(model, {"encoder.0.weight": maps.WeightNorm()}).apply()
    plan = holdfast.plan(model, {"encoder.*.weight": maps.WeightNorm(1)})
    assert [step.path for step in plan.steps] == ENCODER[1:]
    assert "is parametrized already, by WeightNorm" in plan.problems[0]


def test_maps_with_other_values_in_a_large_tensor_are_others():
    layer, mask = nn.Linear(20, 20), torch.rand(20, 20) < 0.5
    holdfast.register_parametrization(layer, "weight", maps.Mask(mask))
    assert holdfast.plan(layer, {"weight": maps.Mask(mask.clone())}).problems == ()
    (problem,) = holdfast.plan(layer, {"weight": maps.Mask(~mask)}).problems
    assert "is parametrized already, by Mask" in problem


def test_tied_tensors_are_reported_with_all_their_names():
    model = Net()
    model.encoder[2].weight = model.encoder[0].weight
    plan = holdfast.plan(model, {"encoder.*.weight": maps.WeightNorm()})
    assert [step.path for step in plan.steps] == ["encoder.1.weight"]
    assert "`encoder.0.weight`: is tied to `encoder.2.weight`" in plan.problems[0]


def test_a_module_in_two_places_is_one():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    plan = holdfast.plan(model, {"2.weight": maps.WeightNorm()})
    assert [step.path for step in plan.steps] == ["0.weight"]
    assert plan.problems == ()
    plan.apply()
    assert len(shared.parametrizations.weight) == 1


def test_a_plan_prints_as_a_table():
    model = Net()
    rules = {"encoder.0.weight": maps.WeightNorm(), "head.weight": maps.Symmetric()}
    lines = re.sub(r"0\.\d{3,}|\d\.\d+e-\d+", "T", str(holdfast.plan(model, rules)))
    head, first, second, problem = lines.splitlines()
    assert head.split() == ["tensor", "shape", "maps", "parameters", "ms", "moved"]
    assert re.split("  +", first)[:4] == [
        "encoder.0.weight",
        "4 x 4",
        "WeightNorm()",
        "16 -> 20",
    ]
    assert re.split("  +", second) == ["head.weight", "2 x 3", "Symmetric()", "6"]
    assert problem.startswith("! `head.weight`: ")


def test_a_model_on_the_meta_device_is_planned_and_parametrized():
    with torch.device("meta"):
        model = Net()
    plan = holdfast.plan(model, {"encoder.*.weight": maps.ThinOrthogonal()})
    assert [(step.moved, step.milliseconds) for step in plan.steps] == [
        (None, None)
    ] * 3
    plan.apply()
    assert model.encoder[0].weight.is_meta


RULES = {
    "encoder.*.weight": [maps.Skew(), maps.Cayley()],
    nn.Conv2d: maps.WeightNorm(dim=1),
    (nn.LSTM, re.compile("weight_hh_l0")): maps.ThinOrthogonal(),
    "head.weight": None,
}


def test_rules_are_the_same_as_plain_data_both_ways():
    model, twin = Net(), Net()
    data = json.loads(json.dumps(holdfast.plan(model, RULES).data()))
    again = holdfast.plan(twin, data)
    assert again.data() == data
    assert str(holdfast.plan(model, RULES).apply()) == str(again.apply())


def test_the_spec_of_a_model_rebuilds_it():
    model, twin = Net(), Net()
    holdfast.plan(model, RULES).apply()
    data = json.loads(json.dumps(holdfast.spec(model)))
    holdfast.plan(twin, data).apply()
    twin.load_state_dict(model.state_dict())
    assert str(twin) == str(model)
    for ours, other in zip(model.encoder, twin.encoder, strict=True):
        assert torch.equal(ours.weight, other.weight)


def test_a_path_with_the_characters_of_globs_names_itself_alone():
    model = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "a0": nn.Linear(2, 2)})
    holdfast.weight_norm(model["a[0]"])
    twin = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "a0": nn.Linear(2, 2)})
    plan = holdfast.plan(twin, holdfast.spec(model))
    assert [step.path for step in plan.steps] == ["a[0].weight"]


def test_a_map_without_a_spec_is_refused():
    model = nn.Linear(2, 2)
    holdfast.register_parametrization(model, "weight", nn.Identity())
    with pytest.raises(PlanError, match="`Identity` has no spec"):
        holdfast.spec(model)


class Doubled(Parametrization):
    def forward(self, X):
        return 2 * X

    def right_inverse(self, weight):
        return weight / 2


def test_data_may_name_classes_of_the_users():
    data = [{"tensor": "weight", "maps": [{"map": "Doubled"}]}]
    with pytest.raises(SpecError, match="there is no map `Doubled`"):
        holdfast.plan(nn.Linear(2, 2), data)
    model = holdfast.plan(nn.Linear(2, 2), data, also=[Doubled]).apply()
    assert isinstance(model.parametrizations.weight[0], Doubled)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("encoder.*", "Expected rules as a mapping"),
        ({3: maps.Skew()}, "Expected a glob"),
        ({int: maps.Skew()}, "Expected a glob"),
        ({("a", "b", "c"): maps.Skew()}, "Expected a pair"),
        ({"a": "Skew"}, "`a`: expected a map"),
        ({"a": []}, "`a`: expected a map"),
        ({"a": maps.Skew}, "`a`: expected a map"),
        ([3], r"`rules\[0\]`: expected a dictionary"),
        ([{}], r"`rules\[0\]`: expected \"tensor\""),
        ([{"tensor": "a", "maps": None, "more": 1}], "`more`"),
        ([{"tensor": 3, "maps": None}], r"`rules\[0\]\.tensor`: expected a glob"),
        ([{"tensor": {"regex": "("}, "maps": None}], "is no regular expression"),
        ([{"tensor": {"type": 3}, "maps": None}], "expected a glob"),
        ([{"tensor": "a", "maps": []}], "expected a list of specs"),
        ([{"tensor": "a", "maps": [{"map": "os.system"}]}], "there is no map"),
        ([{"module": {"type": "os.system"}, "tensor": "a", "maps": None}], ""),
    ],
    ids=str,
)
def test_rules_that_cannot_be_read_are_refused(rules, message):
    if message:
        with pytest.raises((PlanError, SpecError), match=message):
            holdfast.plan(Net(), rules)
    else:  # a type is a name to compare with: nothing is imported
        plan = holdfast.plan(Net(), rules)
        assert plan.problems == ("The rule `system, a` names no tensor.",)


def test_a_plan_for_a_module_that_was_replaced_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    plan = holdfast.plan(model, {"*.weight": maps.Symmetric()})
    model[1] = nn.Linear(3, 3)
    with pytest.raises(holdfast.errors.PlanError, match="`1.weight`: the module was"):
        plan.apply()
    assert not any(map(holdfast.is_parametrized, model))


REPLACEMENTS = {
    "another layer": lambda m: m[1].__setitem__(0, nn.Linear(3, 3)),
    "another block": lambda m: m.__setitem__(1, nn.Sequential(nn.Linear(3, 3))),
    "a layer without it": lambda m: m.__setitem__(1, nn.ReLU()),
    "nothing": lambda m: m.__delitem__(1),
    "a map": lambda m: holdfast.orthogonal(m[1][0]),
}


@pytest.mark.parametrize("change", REPLACEMENTS)
def test_a_plan_goes_to_no_module_that_it_was_not_made_for(change):
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))
    old = model[1][0]
    plan = holdfast.plan(model, {"*.weight": maps.Symmetric()})
    REPLACEMENTS[change](model)
    with pytest.raises(holdfast.errors.PlanError, match=r"`1\.0\.weight`: .* since"):
        plan.apply()
    assert not holdfast.is_parametrized(model[0])
    assert holdfast.is_parametrized(old) == (change == "a map")


def test_a_plan_is_carried_out_once():
    model = nn.Sequential(nn.Linear(3, 3))
    plan = holdfast.plan(model, {"*.weight": maps.Symmetric()})
    plan.apply()
    with pytest.raises(holdfast.errors.PlanError, match="it was parametrized since"):
        plan.apply()
    assert len(model[0].parametrizations.weight) == 1
