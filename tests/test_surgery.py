"""A10: links inserted, replaced, removed and disabled; other coordinates."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import holdfast
from holdfast import maps, sets
from support import Gain, Halves, OneWay, bits, state_of


def layer_with(*links: nn.Module, n: int = 3) -> nn.Module:
    layer = nn.Linear(n, n)
    for link in links:
        holdfast.register_parametrization(layer, "weight", link)
    return layer


def chain(layer: nn.Module) -> list[str]:
    return [type(m).__name__ for m in layer.parametrizations.weight._modules.values()]


def value(layer: nn.Module) -> Tensor:
    return layer.weight.detach().clone()


# ---- By index and by instance, with the value or the originals kept -----------------


@pytest.mark.parametrize("by", ["index", "negative index", "instance"])
def test_A10_a_link_is_replaced_and_the_value_stays(by):
    layer = layer_with(maps.Skew(), maps.MatrixExp())
    Q, original = value(layer), layer.parametrizations.weight.original
    links = {"index": 1, "negative index": -1}
    link = links.get(by, layer.parametrizations.weight[1])
    assert holdfast.replace_link(layer, "weight", link, maps.Cayley()) is layer
    assert chain(layer) == ["Skew", "Cayley"]
    assert_close(layer.weight.detach(), Q)
    assert layer.parametrizations.weight.original is original
    layer(torch.ones(1, 3)).sum().backward()
    assert original.grad is not None


@pytest.mark.parametrize("by", ["index", "instance"])
def test_A10_a_link_is_removed_and_the_value_stays(by):
    layer = layer_with(maps.Symmetric(), maps.MatrixExp())
    W = value(layer)
    link = 1 if by == "index" else layer.parametrizations.weight[1]
    holdfast.remove_link(layer, "weight", link)
    assert chain(layer) == ["Symmetric"]
    assert_close(layer.weight.detach(), W)


def test_A10_a_link_is_inserted_and_the_value_stays():
    layer = layer_with(Gain())
    with torch.no_grad():
        layer.weight = torch.eye(3) + 1
    W = value(layer)
    holdfast.insert_link(layer, "weight", 0, maps.Symmetric())
    assert chain(layer) == ["Symmetric", "Gain"]
    assert_close(layer.weight.detach(), W)


@pytest.mark.parametrize("index", [0, 1, 2, -1, -2])
def test_A10_a_link_goes_where_list_insert_puts_it(index):
    layer = layer_with(Gain(), Gain())
    names = chain(layer)
    names.insert(index, "Identity")
    holdfast.insert_link(layer, "weight", index, nn.Identity(), keep="originals")
    assert chain(layer) == names


def test_A10_originals_are_kept_on_request_and_the_value_changes():
    layer = layer_with(maps.Skew(), maps.MatrixExp())
    original = layer.parametrizations.weight.original
    before, W = bits(original), value(layer)
    original.grad = torch.ones_like(original)
    holdfast.replace_link(layer, "weight", 1, maps.Cayley(), keep="originals")
    assert bits(original) == before
    assert original.grad is None
    assert not torch.allclose(layer.weight, W)
    other = layer_with(maps.Skew(), maps.Cayley())
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(original)
    assert_close(layer.weight, other.weight)
    holdfast.remove_link(layer, "weight", 1, keep="originals")
    assert sets.SkewMatrices().contains(layer.weight)


def test_A10_a_value_that_the_new_maps_do_not_reach_is_refused_or_moved():
    layer = layer_with(Gain())
    W, before = value(layer), state_of(layer)
    with pytest.raises(holdfast.errors.NotInSetError, match="would move.*nearest"):
        holdfast.replace_link(layer, "weight", 0, maps.Symmetric())
    assert state_of(layer) == before
    holdfast.replace_link(layer, "weight", 0, maps.Symmetric(), keep="nearest")
    assert_close(layer.weight.detach(), (W + W.T) / 2)
    assert layer.parametrizations.weight.moved > 0.01


def test_A10_the_policy_of_the_chain_stays_what_it_was():
    layer = layer_with(maps.Symmetric())
    layer.parametrizations.weight.outside = "warn"
    holdfast.reparametrize(layer, "weight", maps.Symmetric())
    assert layer.parametrizations.weight.outside == "warn"


def test_A10_maps_that_do_not_fit_together_are_refused():
    layer = layer_with(maps.Skew(), maps.Cayley())
    before = state_of(layer)
    for call in (
        lambda: holdfast.remove_link(layer, "weight", 0),
        lambda: holdfast.remove_link(layer, "weight", 0, keep="originals"),
        lambda: holdfast.replace_link(layer, "weight", 0, maps.Symmetric()),
        lambda: holdfast.replace_link(
            layer, "weight", 0, maps.Symmetric(), keep="originals"
        ),
        lambda: holdfast.insert_link(layer, "weight", 1, Gain(), keep="originals"),
    ):
        with pytest.raises(holdfast.errors.NotInSetError, match="Linear.weight"):
            call()
        assert state_of(layer) == before


def test_A10_the_number_of_originals_may_change_both_ways():
    layer = layer_with(Gain())
    W, old = value(layer), layer.parametrizations.weight.original
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    holdfast.replace_link(layer, "weight", 0, maps.WeightNorm())
    assert_close(layer.weight.detach(), W)
    names = [n for n, _ in layer.named_parameters()]
    assert names[-2:] == [f"parametrizations.weight.original{i}" for i in (0, 1)]
    assert holdfast.swap_parameters(optimizer) == 1
    held = optimizer.param_groups[0]["params"]
    assert {id(p) for p in layer.parameters()} <= {id(p) for p in held} | {id(old)}
    holdfast.reparametrize(layer, "weight", Gain())
    assert_close(layer.weight.detach(), W)
    assert layer.parametrizations.weight.is_tensor
    assert holdfast.swap_parameters(optimizer) >= 1


def test_A10_a_map_of_several_originals_stays_first():
    layer = layer_with(Halves())
    with pytest.raises(ValueError, match="takes 2 tensors"):
        holdfast.insert_link(layer, "weight", 0, Gain())
    holdfast.insert_link(layer, "weight", 1, Gain())
    assert chain(layer) == ["Halves", "Gain"]


def test_A10_frozen_originals_buffers_and_modes_stay_what_they_are():
    layer = layer_with(maps.WeightNorm()).eval()
    layer.requires_grad_(False)
    holdfast.reparametrize(layer, "weight", Gain())
    assert not layer.parametrizations.weight.original.requires_grad
    assert not layer.parametrizations.weight[0].training
    module = nn.Module()
    module.register_buffer("table", torch.rand(3, 3), persistent=False)
    holdfast.register_parametrization(module, "table", Gain())
    holdfast.reparametrize(module, "table", Halves())
    assert [*module.state_dict()] == []
    assert not [*module.parameters()]


def test_A10_state_of_the_links_that_stay_is_kept():
    schedule = maps.GradualTopK(0.5, steps=4)
    layer = layer_with(Gain(), schedule)
    schedule.advance_()
    state = {k: bits(t) for k, t in schedule.state_dict().items()}
    holdfast.insert_link(layer, "weight", 1, Gain(), keep="originals")
    assert {k: bits(t) for k, t in schedule.state_dict().items()} == state


def test_A10_spectral_norm_advances_where_it_is_and_not_where_it_was():
    norm = maps.SpectralNorm()
    layer = layer_with(Gain(), norm)
    x = torch.ones(1, 3)
    holdfast.remove_link(layer, "weight", norm, keep="originals")
    assert not layer._forward_pre_hooks
    assert "advanced_by_host" not in vars(norm)
    holdfast.insert_link(layer, "weight", 1, norm, keep="originals")
    state = [bits(t) for t in norm.buffers()]
    layer.parametrizations.weight.original.data.normal_()
    layer(x)
    assert [bits(t) for t in norm.buffers()] != state


@pytest.mark.parametrize("how", ["read", "no_grad", "cached"])
def test_A10_the_next_read_is_fresh(how):
    scope = {"read": torch.enable_grad, "no_grad": torch.no_grad}
    layer = layer_with(maps.Symmetric(), maps.Scaled(maps.Symmetric(), 2.0))
    with scope.get(how, holdfast.cached)():
        before = value(layer)
        holdfast.remove_link(layer, "weight", 1, keep="originals")
        assert_close(layer.weight.detach(), before / 2)


def test_A10_a_shallow_copy_is_operated_on_alone():
    layer = layer_with(maps.Skew(), maps.MatrixExp())
    twin = copy.copy(layer)
    before, W = state_of(layer), value(layer)
    holdfast.replace_link(twin, "weight", 1, maps.Cayley())
    assert_close(twin.weight.detach(), W)
    assert chain(twin) == ["Skew", "Cayley"]
    holdfast.remove_link(twin, "weight", 1, keep="originals")
    assert state_of(layer) == before
    twin = copy.copy(holdfast.orthogonal(nn.Linear(3, 3)))
    origin_base = twin.parametrizations.weight[0].base
    holdfast.insert_link(twin, "weight", 1, nn.Identity(), keep="originals")
    assert twin.parametrizations.weight[0].base is origin_base


def test_A10_what_failed_has_changed_nothing():
    class Failing(nn.Module):
        def forward(self, X):
            return X

        def right_inverse(self, W):
            raise OSError("no")

    layer = holdfast.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley")
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(layer)
    wrong = {
        OSError: lambda: holdfast.insert_link(layer, "weight", 0, Failing()),
        holdfast.errors.NoRightInverseError: lambda: holdfast.insert_link(
            layer, "weight", 1, OneWay()
        ),
        holdfast.errors.InvalidTensorError: lambda: holdfast.insert_link(
            layer, "weight", 1, nn.Flatten(0), keep="originals"
        ),
    }
    for error, call in wrong.items():
        with pytest.raises(error):
            call()
        assert state_of(layer) == before


def test_A10_wrong_arguments_are_refused_with_the_way_out():
    layer, link = layer_with(Gain()), maps.Symmetric()
    with pytest.raises(IndexError, match="0: Gain. Got 3"):
        holdfast.remove_link(layer, "weight", 3)
    with pytest.raises(IndexError, match="another Symmetric"):
        holdfast.remove_link(layer, "weight", link)
    with pytest.raises(IndexError, match="from -1 to 1"):
        holdfast.insert_link(layer, "weight", 2, link)
    with pytest.raises(ValueError, match="remove_parametrizations"):
        holdfast.remove_link(layer, "weight", 0)
    with pytest.raises(ValueError, match="remove_parametrizations"):
        holdfast.reparametrize(layer, "weight")
    with pytest.raises(ValueError, match="\"nearest\".*Got 'all'"):
        holdfast.insert_link(layer, "weight", 0, link, keep="all")
    with pytest.raises(holdfast.errors.UnknownTensorError, match="did|Did you mean"):
        holdfast.insert_link(layer, "wieght", 0, link)
    with pytest.raises(ValueError, match="instance of `nn.Module`"):
        holdfast.insert_link(layer, "weight", 0, "link")
    torchs = parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="torch's own function"):
        holdfast.insert_link(torchs, "weight", 0, link)


def test_A10_a_map_with_state_has_one_place():
    layer, other = layer_with(Gain()), layer_with(Gain())
    taken = other.parametrizations.weight[0]
    with pytest.raises(holdfast.errors.SharedMapError, match="Pass a copy"):
        holdfast.insert_link(layer, "weight", 0, taken)
    mine = layer.parametrizations.weight[0]
    with pytest.raises(holdfast.errors.SharedMapError, match="another place"):
        holdfast.insert_link(layer, "weight", 0, mine)


# ---- Other coordinates --------------------------------------------------------------

ORTHOGONAL = {
    "matrix_exp": lambda: maps.Orthogonal("matrix_exp"),
    "cayley": lambda: maps.Orthogonal("cayley"),
    "householder": lambda: maps.Orthogonal("householder"),
    "householder without base": lambda: maps.Orthogonal(
        "householder", use_trivialization=False
    ),
    "thin cayley": lambda: maps.ThinOrthogonal("cayley"),
    "thin matrix_exp": lambda: maps.ThinOrthogonal("matrix_exp"),
    "polar": maps.Polar,
}


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("new", ORTHOGONAL)
@pytest.mark.parametrize("old", ORTHOGONAL)
def test_A10_orthogonal_weights_change_coordinates_and_stay(old, new, shape):
    layer = nn.Linear(*reversed(shape))
    holdfast.register_parametrization(layer, "weight", ORTHOGONAL[old]())
    original = layer.parametrizations.weight.original
    with torch.no_grad():
        original.add_(0.1 * torch.randn_like(original))
    Q = value(layer)
    holdfast.reparametrize(layer, "weight", ORTHOGONAL[new]())
    assert_close(layer.weight.detach(), Q, rtol=0, atol=2e-6)
    assert layer.parametrizations.weight.original is original
    loaded = nn.Linear(*reversed(shape))
    holdfast.register_parametrization(loaded, "weight", ORTHOGONAL[new]())
    loaded.load_state_dict(layer.state_dict())
    assert_close(loaded.weight.detach(), Q, rtol=0, atol=2e-6)


PATHS = {
    "square": lambda: (maps.Skew(), maps.MatrixExp()),
    "cayley": lambda: (maps.Skew(), maps.Cayley()),
    "one": lambda: (maps.Orthogonal(),),
}


@pytest.mark.parametrize("new", PATHS)
@pytest.mark.parametrize("old", PATHS)
def test_A10_chains_and_single_maps_convert(old, new):
    layer = layer_with(*PATHS[old](), n=4)
    Q = value(layer)
    holdfast.reparametrize(layer, "weight", *PATHS[new]())
    assert_close(layer.weight.detach(), Q, rtol=0, atol=2e-6)
    assert len(layer.parametrizations.weight) == len(PATHS[new]())


def test_A10_a_reflection_is_no_rotation():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    with torch.no_grad():
        layer.weight = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    before = state_of(layer)
    with pytest.raises(holdfast.errors.NotInSetError):
        holdfast.reparametrize(layer, "weight", maps.Orthogonal(special=True))
    assert state_of(layer) == before


def test_A10_an_operated_chain_pickles_and_trains():
    layer = layer_with(maps.Skew(), maps.MatrixExp())
    holdfast.replace_link(layer, "weight", 1, maps.Cayley())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert bits(twin.weight) == bits(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    assert sets.Stiefel().contains(layer.weight)


# ---- Disabled -----------------------------------------------------------------------


@pytest.mark.parametrize("by", ["index", "instance"])
@pytest.mark.parametrize("how", ["read", "no_grad", "cached", "compiled"])
def test_A10_a_disabled_link_passes_on_what_it_gets(how, by):
    layer = layer_with(maps.Symmetric(), maps.Scaled(maps.Symmetric(), 2.0))
    scope = {"no_grad": torch.no_grad, "cached": holdfast.cached}
    link = 1 if by == "index" else layer.parametrizations.weight[1]
    keys, before = [*layer.state_dict()], state_of(layer)

    def read() -> Tensor:
        return layer.weight * 1.0

    if how == "compiled":
        read = torch.compile(read, backend="eager", fullgraph=True)
    with scope.get(how, torch.enable_grad)():
        W = read().detach()
        with holdfast.disabled(layer, "weight", link):
            assert_close(read().detach(), W / 2)
            assert_close(layer.weight.detach(), W / 2)
            assert [*layer.state_dict()] == keys
            assert_close(copy.deepcopy(layer).weight.detach(), W)
            assert_close(copy.copy(layer).weight.detach(), W)
        assert_close(read().detach(), W)
    if how == "read":
        assert state_of(layer) == before


def test_A10_assignment_passes_a_disabled_link_too():
    layer = layer_with(Gain(), maps.Symmetric())
    W = torch.arange(9.0).reshape(3, 3)
    with holdfast.disabled(layer, "weight", 1):
        layer.weight = W
        assert_close(layer.weight.detach(), W)
    assert torch.equal(layer.weight, layer.weight.T)


def test_A10_disabling_nests_and_ends_after_an_exception():
    layer = layer_with(Gain(), Gain())
    W, X = value(layer), layer.parametrizations.weight.original.detach().clone()
    scope = holdfast.disabled(layer, "weight", 0)
    with scope:
        with scope, holdfast.disabled(layer, "weight", 1):
            assert_close(layer.weight.detach(), X)
        assert_close(layer.weight.detach(), 2 * X + 0.5)
    with pytest.raises(KeyError), scope:
        raise KeyError
    assert_close(layer.weight.detach(), W)


def test_A10_disabled_state_does_not_move():
    layer = layer_with(Gain(), maps.SpectralNorm())
    link = layer.parametrizations.weight[1]
    state = [bits(t) for t in link.buffers()]
    layer.parametrizations.weight.original.data.normal_()
    with holdfast.disabled(layer, "weight", 1):
        layer(torch.ones(1, 3))
    assert [bits(t) for t in link.buffers()] == state
    layer(torch.ones(1, 3))
    assert [bits(t) for t in link.buffers()] != state


def test_A10_what_cannot_be_left_out_is_refused():
    layer = layer_with(maps.WeightNorm())
    with pytest.raises(ValueError, match="one tensor of 2"):
        holdfast.disabled(layer, "weight", 0).__enter__()
    layer = nn.Linear(4, 4)
    holdfast.register_parametrization(layer, "weight", maps.Toeplitz())
    W = value(layer)
    with pytest.raises(ValueError, match="shape"):
        holdfast.disabled(layer, "weight", 0).__enter__()
    assert_close(layer.weight.detach(), W)
    layer = layer_with(Gain())
    with (
        holdfast.disabled(layer, "weight", 0),
        pytest.raises(ValueError, match="disabled link"),
    ):
        holdfast.insert_link(layer, "weight", 0, nn.Identity())


def test_A10_folding_takes_the_value_without_disabled_links():
    layer = layer_with(Gain())
    X = layer.parametrizations.weight.original.detach().clone()
    with holdfast.disabled(layer, "weight", 0), holdfast.folded(layer):
        assert_close(layer.weight.detach(), X)
    assert_close(layer.weight.detach(), 2 * X + 0.5)


# ---- Registering once ---------------------------------------------------------------

MASK = torch.eye(3)


@pytest.mark.parametrize(
    "make",
    [maps.Symmetric, lambda: maps.Mask(MASK.clone()), lambda: maps.WeightNorm(1)],
    ids=["no arguments", "a tensor", "a number"],
)
def test_A10_registering_once_is_idempotent(make):
    map_ = make()
    layer = layer_with(map_)
    before = state_of(layer)
    for again in (map_, make()):
        out = holdfast.register_parametrization(layer, "weight", again, once=True)
        assert out is layer
        assert state_of(layer) == before


def test_A10_once_adds_maps_that_are_not_there():
    layer = layer_with(maps.Mask(MASK))
    for other in (maps.Mask(1 - MASK), maps.Scaled(maps.Symmetric(), 2.0), Gain()):
        n = len(layer.parametrizations.weight)
        holdfast.register_parametrization(layer, "weight", other, once=True)
        assert len(layer.parametrizations.weight) == n + 1
    holdfast.register_parametrization(layer, "bias", Gain(), once=True)
    assert holdfast.is_parametrized(layer, "bias")


def test_A10_without_once_maps_add_up():
    layer = layer_with(maps.Symmetric(), maps.Symmetric())
    assert len(layer.parametrizations.weight) == 2
