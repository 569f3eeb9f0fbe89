"""The PyTorch tutorial on parametrizations, to the letter: T1 to T14."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close

import holdfast
from holdfast import maps


class Symmetric(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT


class Skew(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu(1) - X.triu(1).mT

    def right_inverse(self, A: Tensor) -> Tensor:
        return A.triu(1)


class CayleyMap(nn.Module):
    """The tutorial's map, its right inverse with the sign put right."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("Id", torch.eye(n))

    def forward(self, X: Tensor) -> Tensor:
        return torch.linalg.solve(self.Id - X, self.Id + X)

    def right_inverse(self, Q: Tensor) -> Tensor:
        return torch.linalg.solve(Q + self.Id, Q - self.Id)


class TutorialCayleyMap(CayleyMap):
    """The tutorial's own right inverse, with its wrong sign."""

    def right_inverse(self, Q: Tensor) -> Tensor:
        return torch.linalg.solve(Q + self.Id, self.Id - Q)


class MatrixExponential(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return torch.matrix_exp(X)


class Pruning(nn.Module):
    def __init__(self, X: Tensor, p_drop: float = 0.2) -> None:
        super().__init__()
        self.mask = torch.bernoulli(torch.full_like(X, 1.0 - p_drop))

    def forward(self, X: Tensor) -> Tensor:
        return X * self.mask

    def right_inverse(self, A: Tensor) -> Tensor:
        return A


class RankOne(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.unsqueeze(-1) @ y.unsqueeze(-2)

    def right_inverse(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        U, S, Vh = torch.linalg.svd(Z, full_matrices=False)
        root = S[..., :1].sqrt()
        return U[..., :, 0] * root, Vh[..., 0, :] * root


class Scaled(nn.Module):
    """A map with a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(1.0))

    def forward(self, X: Tensor) -> Tensor:
        return self.scale * X + self.shift


class Row(nn.Module):
    """Changes the shape, and returns to it."""

    def forward(self, X: Tensor) -> Tensor:
        return X[:1]


class Double(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.double()


class Convolved(nn.Module):
    """A module with a buffer worth constraining."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel


def register(module: nn.Module, *chain: nn.Module, name: str = "weight") -> nn.Module:
    for link in chain:
        holdfast.register_parametrization(module, name, link)
    return module


def rotation(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an orthogonal matrix of determinant one without an eigenvalue at -1."""
    A = torch.linspace(-1.0, 1.0, n * n, dtype=torch.float64).sin().reshape(n, n)
    return torch.matrix_exp(A - A.mT).to(dtype)


def assert_orthogonal(Q: Tensor) -> None:
    tall = Q if Q.shape[-2] >= Q.shape[-1] else Q.mT
    gram = tall.mT @ tall
    assert_close(gram, torch.eye(len(gram)).expand_as(gram), atol=1e-5, rtol=0)


# ---- T1, T2: one module, one call ------------------------------------------------


def test_T1_any_module_with_forward_is_a_parametrization() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    register(layer, Symmetric())
    assert_close(layer.weight, before.triu() + before.triu(1).mT)
    x = torch.randn(8, 3)
    assert_close(layer(x), x @ layer.weight.mT + layer.bias)


def test_T1_gradient_goes_through_the_forward() -> None:
    layer = register(nn.Linear(3, 3, bias=False), Symmetric())
    layer.weight.sum().backward()
    expected = torch.ones(3, 3).triu() + torch.ones(3, 3).triu(1)
    assert_close(layer.parametrizations.weight.original.grad, expected)


def test_T1_modules_without_a_class_of_their_own_work_too() -> None:
    layer = register(nn.Linear(3, 3), nn.Tanh())
    assert_close(layer.weight, layer.parametrizations.weight.original.tanh())


REPR = """\
ParametrizedLinear(
  in_features=3, out_features=3, bias=True
  (parametrizations): ModuleDict(
    (weight): ParametrizationList(
      (0): Symmetric()
    )
  )
)"""


def test_T2_registration_returns_the_module_with_the_tutorials_repr() -> None:
    layer = nn.Linear(3, 3)
    assert holdfast.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear"
    assert isinstance(layer, nn.Linear)
    assert repr(layer) == REPR


def test_T2_repr_of_the_list_and_of_the_dictionary() -> None:
    layer = register(nn.Linear(3, 3), Symmetric())
    one = "ParametrizationList(\n  (0): Symmetric()\n)"
    assert repr(layer.parametrizations.weight) == one
    inner = one.replace("\n", "\n  ")
    assert repr(layer.parametrizations) == f"ModuleDict(\n  (weight): {inner}\n)"


@pytest.mark.parametrize(
    "name",
    [
        "register_parametrization",
        "remove_parametrizations",
        "is_parametrized",
        "type_before_parametrizations",
        "transfer_parametrizations_and_params",
        "orthogonal",
        "weight_norm",
        "spectral_norm",
    ],
)
def test_T2_names_signatures_and_defaults_are_torchs(name: str) -> None:
    source = torch_parametrize if hasattr(torch_parametrize, name) else torch_recipes
    theirs = inspect.signature(getattr(source, name)).parameters.values()
    ours = dict(inspect.signature(getattr(holdfast, name)).parameters)
    positional = [p.name for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    for parameter in theirs:
        assert ours[parameter.name].default == parameter.default
    added = set(ours) - {p.name for p in theirs}
    assert all(ours[p].default is not inspect.Parameter.empty for p in added)


# ---- T3, T4, T5: what a parametrized module looks like ----------------------------


def test_T3_weight_is_computed_at_each_access() -> None:
    layer = register(nn.Linear(3, 3), Symmetric())
    assert inspect.isdatadescriptor(inspect.getattr_static(layer, "weight"))
    first, second = layer.weight, layer.weight
    assert first is not second
    assert first.data_ptr() != second.data_ptr()
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(1.0)
    assert_close(layer.weight, first + 1.0)


def test_T3_parametrizations_is_a_dictionary_of_indexable_lists() -> None:
    link = Symmetric()
    layer = register(nn.Linear(3, 3), link)
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    chain = layer.parametrizations.weight
    assert chain is layer.parametrizations["weight"]
    assert isinstance(chain, holdfast.ParametrizationList)
    assert isinstance(chain, nn.ModuleList)
    assert chain[0] is link
    assert chain[-1] is link
    assert len(chain) == 1
    assert_close(chain(), layer.weight)


def test_T3_the_free_tensor_is_the_parameter_that_was_there() -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    register(layer, Symmetric())
    named = dict(layer.named_parameters())
    assert set(named) == {"bias", "parametrizations.weight.original"}
    assert named["parametrizations.weight.original"] is weight
    assert layer.parametrizations.weight.original is weight
    assert isinstance(weight, nn.Parameter)
    assert torch.dist(layer.weight, Symmetric()(weight)) == 0


def test_T3_is_parametrized_here_and_in_torch() -> None:
    layer = nn.Linear(3, 3)
    for is_parametrized in (
        holdfast.is_parametrized,
        torch_parametrize.is_parametrized,
    ):
        assert not is_parametrized(layer)
    register(layer, Symmetric())
    for is_parametrized in (
        holdfast.is_parametrized,
        torch_parametrize.is_parametrized,
    ):
        assert is_parametrized(layer)
        assert is_parametrized(layer, "weight")
        assert not is_parametrized(layer, "bias")
    assert holdfast.type_before_parametrizations(layer) is nn.Linear
    assert holdfast.type_before_parametrizations(nn.Linear(1, 1)) is nn.Linear


def test_T4_convolution_with_skew_symmetric_kernels() -> None:
    cnn = register(nn.Conv2d(5, 8, 3), Skew())
    assert type(cnn).__name__ == "ParametrizedConv2d"
    assert cnn.weight.shape == (8, 5, 3, 3)
    assert_close(cnn.weight, -cnn.weight.mT)
    assert cnn.weight.abs().max() > 0
    x = torch.randn(2, 5, 7, 7)
    assert_close(cnn(x), nn.functional.conv2d(x, cnn.weight, cnn.bias))


def test_T4_buffers_stay_buffers() -> None:
    module = Convolved()
    kernel = module.kernel
    register(module, Skew(), name="kernel")
    assert list(module.parameters()) == []
    assert list(module.state_dict()) == ["parametrizations.kernel.original"]
    assert module.parametrizations.kernel.original is kernel
    assert not isinstance(kernel, nn.Parameter)
    assert not module.kernel.requires_grad
    assert_close(module.kernel, -module.kernel.mT)
    holdfast.remove_parametrizations(module, "kernel")
    assert list(module.state_dict()) == ["kernel"]
    assert not isinstance(module.kernel, nn.Parameter)


def test_T4_two_tensors_of_one_module() -> None:
    layer = register(nn.Linear(3, 3), Symmetric())
    register(layer, nn.Tanh(), name="bias")
    assert type(layer).__name__ == "ParametrizedLinear"
    assert set(layer.parametrizations) == {"weight", "bias"}
    assert_close(layer.bias, layer.parametrizations.bias.original.tanh())
    holdfast.remove_parametrizations(layer, "weight")
    assert holdfast.is_parametrized(layer, "bias")
    assert not holdfast.is_parametrized(layer, "weight")
    assert_close(layer.bias, layer.parametrizations.bias.original.tanh())


def test_T5_state_of_a_map_follows_the_module() -> None:
    link = Scaled()
    layer = register(nn.Linear(3, 3), link)
    keys = {"parametrizations.weight.0.scale", "parametrizations.weight.0.shift"}
    assert keys <= set(layer.state_dict())
    assert any(p is link.scale for p in layer.parameters())
    layer.to(torch.float64)
    assert link.scale.dtype == link.shift.dtype == torch.float64
    assert layer.weight.dtype == torch.float64
    layer.to("meta")
    assert link.scale.is_meta
    assert link.shift.is_meta
    assert layer.weight.is_meta


def test_T5_train_and_apply_reach_the_maps() -> None:
    link = Scaled()
    layer = register(nn.Linear(3, 3), link)
    layer.eval()
    assert not link.training
    layer.train()
    assert link.training
    seen: list[nn.Module] = []
    layer.apply(seen.append)
    assert any(module is link for module in seen)


def test_T5_state_dict_restores_the_state_of_a_map() -> None:
    first = register(nn.Linear(3, 3), Scaled())
    second = register(nn.Linear(3, 3), Scaled())
    with torch.no_grad():
        first.parametrizations.weight[0].scale.fill_(5.0)
        first.parametrizations.weight[0].shift.fill_(7.0)
    second.load_state_dict(first.state_dict())
    assert_close(second.weight, first.weight, atol=0, rtol=0)
    assert second.parametrizations.weight[0].shift == 7.0


@pytest.mark.usefixtures("device")
def test_T5_cuda_moves_the_maps() -> None:
    layer = register(nn.Linear(3, 3), Scaled()).cuda()
    assert layer.parametrizations.weight[0].shift.is_cuda
    assert layer.weight.is_cuda


# ---- T6, T7: caching and concatenation -------------------------------------------


class NoisyParametrization(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        print("computing")  # noqa: T201
        return X


def test_T6_cached_computes_once_inside_the_scope(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layer = register(nn.Linear(4, 4), NoisyParametrization())
    print("outside")  # noqa: T201
    _ = layer.weight + layer.weight.T
    _ = layer.weight.sum()
    with holdfast.cached():
        print("inside")  # noqa: T201
        _ = layer.weight + layer.weight.T
        _ = layer.weight.sum()
    # The tutorial's output: registering evaluates once, to check the shape.
    expected = ["computing", "outside", *["computing"] * 3, "inside", "computing"]
    assert capsys.readouterr().out.split() == expected


def test_T7_skew_then_cayley_is_orthogonal() -> None:
    layer = register(nn.Linear(3, 3), Skew(), CayleyMap(3))
    assert_orthogonal(layer.weight)
    skew = Skew()(layer.parametrizations.weight.original)
    assert_close(layer.weight, CayleyMap(3)(skew))
    kinds = [type(link) for link in layer.parametrizations.weight]
    assert kinds == [Skew, CayleyMap]


def test_T7_skew_then_exponential_is_orthogonal() -> None:
    layer = register(nn.Linear(3, 3), Skew(), MatrixExponential())
    assert_orthogonal(layer.weight)
    assert torch.linalg.det(layer.weight) > 0


def test_T7_symmetric_then_exponential_is_positive_definite() -> None:
    layer = register(nn.Linear(3, 3), Symmetric(), MatrixExponential())
    assert_close(layer.weight, layer.weight.T)
    assert (torch.linalg.eigvalsh(layer.weight) > 0).all()
    # The other order is neither: the order of registration matters.
    other = register(nn.Linear(3, 3), MatrixExponential(), nn.Tanh())
    assert torch.dist(other.weight, other.weight.T) > 1e-2


def test_T7_registering_twice_keeps_the_original() -> None:
    layer = nn.Linear(3, 3)
    weight, value = layer.weight, layer.weight.detach().clone()
    register(layer, Symmetric(), MatrixExponential())
    assert layer.parametrizations.weight.original is weight
    assert_close(weight, value, atol=0, rtol=0)


# ---- T8, T9, T10: assignment ------------------------------------------------------


def test_T8_assignment_goes_through_the_right_inverse() -> None:
    layer = register(nn.Linear(3, 3), Skew())
    original = layer.parametrizations.weight.original
    X = torch.rand(3, 3)
    X = X - X.T
    layer.weight = X
    assert torch.dist(layer.weight, X) == 0
    assert layer.parametrizations.weight.original is original
    assert_close(original, X.triu(1), atol=0, rtol=0)


def test_T8_through_a_concatenation_in_reverse_order() -> None:
    layer = register(nn.Linear(3, 3), Skew(), CayleyMap(3))
    Q = rotation(3)
    layer.weight = Q
    assert_close(layer.weight, Q, atol=1e-5, rtol=0)
    assert_close(
        layer.parametrizations.weight.original,
        Skew().right_inverse(CayleyMap(3).right_inverse(Q)),
    )


def test_T8_every_link_needs_a_right_inverse() -> None:
    layer = register(nn.Linear(3, 3), Skew(), MatrixExponential())
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match="MatrixExponential.*right_inverse"):
        layer.weight = torch.eye(3)
    assert_close(layer.weight, before, atol=0, rtol=0)


def awkward_orthogonal_matrices() -> dict[str, Tensor]:
    eye = torch.eye(3, dtype=torch.float64)
    reflection = eye.clone()
    reflection[0, 0] = -1.0
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]).double())
    Q = rotation(3, torch.float64)
    return {
        "identity": eye,
        "rotation": Q,
        "reflection": reflection,
        "determinant -1": reflection @ Q,
        "half turn": Q @ half_turn @ Q.T,
        "minus identity": -eye,
        "permutation": eye[[1, 0, 2]],
        "cyclic permutation": torch.eye(4, dtype=torch.float64)[[1, 2, 3, 0]],
        "one by one": torch.tensor([[-1.0]], dtype=torch.float64),
        "larger": rotation(8, torch.float64)[[1, 0, 2, 3, 4, 5, 6, 7]],
        "batch": torch.stack([Q, reflection @ Q, half_turn, -eye]),
    }


@pytest.mark.parametrize("name", list(awkward_orthogonal_matrices()))
def test_T9_cayley_returns_every_orthogonal_matrix(name: str) -> None:
    Q = awkward_orthogonal_matrices()[name]
    for dtype, atol in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        layer = nn.Module()
        layer.weight = nn.Parameter(torch.randn_like(Q).to(dtype))
        register(layer, maps.Skew(), maps.Cayley())
        layer.weight = Q.to(dtype)
        assert_close(layer.weight, Q.to(dtype), atol=atol, rtol=0)
        assert torch.isfinite(layer.parametrizations.weight.original).all()


def test_T9_assigning_an_orthogonal_initialization() -> None:
    layer = register(nn.Linear(3, 3), maps.Skew(), maps.Cayley())
    for _ in range(8):  # half of them have determinant -1
        value = nn.init.orthogonal_(layer.weight)
        layer.weight = value
        assert_close(layer.weight, value, atol=1e-5, rtol=0)


def test_T9_the_weight_still_trains_after_an_awkward_assignment() -> None:
    layer = register(nn.Linear(3, 3, bias=False), maps.Skew(), maps.Cayley())
    layer.weight = -torch.eye(3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    target = torch.linalg.qr(torch.randn(3, 3))[0]
    (layer.weight - target).square().sum().backward()
    optimizer.step()
    assert_orthogonal(layer.weight)
    assert torch.dist(layer.weight, -torch.eye(3)) > 1e-3


def test_T9_control_the_tutorials_own_right_inverse_is_wrong() -> None:
    layer = nn.Linear(3, 3)
    for link in (Skew(), TutorialCayleyMap(3)):
        torch_parametrize.register_parametrization(layer, "weight", link)
    Q = rotation(3)
    layer.weight = Q
    assert_close(torch.dist(layer.weight, Q), torch.dist(Q, Q.T))
    assert torch.dist(layer.weight, Q) > 0.1
    with pytest.raises(torch.linalg.LinAlgError):
        layer.weight = -torch.eye(3)


def test_T10_what_is_assigned_is_pruned() -> None:
    layer = nn.Linear(30, 40)
    link = Pruning(layer.weight)
    X = torch.rand_like(layer.weight) + 1.0
    register(layer, link)
    layer.weight = X
    assert_close(layer.weight, X * link.mask, atol=0, rtol=0)
    kept = (layer.weight != 0).float().mean()
    assert 0.7 < kept < 0.9


# ---- T11, T12, T13: removal, several tensors, unsafe ------------------------------


def test_T11_removal_leaves_the_constrained_value() -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    before = repr(layer)
    register(layer, Skew())
    value = layer.weight.detach().clone()
    assert holdfast.remove_parametrizations(layer, "weight") is layer
    assert type(layer) is nn.Linear
    assert repr(layer) == before == "Linear(in_features=3, out_features=3, bias=True)"
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight is weight
    assert layer.weight.is_leaf
    assert layer.weight.requires_grad
    assert_close(layer.weight.detach(), value, atol=0, rtol=0)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert not holdfast.is_parametrized(layer)


def test_T11_removal_with_the_original_value() -> None:
    layer = register(nn.Linear(3, 3), Symmetric())
    original = layer.parametrizations.weight.original.detach().clone()
    holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    assert_close(layer.weight.detach(), original, atol=0, rtol=0)
    assert torch.dist(layer.weight, layer.weight.T) > 0.1


def test_T11_removing_twice_or_from_a_plain_tensor_is_an_error() -> None:
    layer = register(nn.Linear(3, 3), Symmetric())
    with pytest.raises(ValueError, match="does not have a parametrization on"):
        holdfast.remove_parametrizations(layer, "bias")
    holdfast.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="does not have a parametrization on"):
        holdfast.remove_parametrizations(layer, "weight")


def test_T11_removal_frees_all_links_at_once() -> None:
    layer = register(nn.Linear(3, 3), Symmetric(), MatrixExponential())
    value = layer.weight.detach().clone()
    holdfast.remove_parametrizations(layer, "weight")
    assert_close(layer.weight.detach(), value, atol=0, rtol=0)


def test_T12_a_sequence_of_originals() -> None:
    layer = register(nn.Linear(4, 5), RankOne())
    chain = layer.parametrizations.weight
    assert not chain.is_tensor
    assert chain.ntensors == 2
    assert chain.original0.shape == (5,)
    assert chain.original1.shape == (4,)
    assert isinstance(chain.original0, nn.Parameter)
    assert set(layer.state_dict()) == {
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    }
    with pytest.raises(AttributeError, match="original"):
        _ = chain.original
    assert torch.linalg.matrix_rank(layer.weight) == 1


def test_T12_assignment_and_removal() -> None:
    layer = register(nn.Linear(4, 5), RankOne())
    X = torch.outer(torch.randn(5), torch.randn(4))
    layer.weight = X
    assert_close(layer.weight, X)
    with pytest.raises(ValueError, match="Cannot leave unparametrized"):
        holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert holdfast.is_parametrized(layer, "weight")
    holdfast.remove_parametrizations(layer, "weight")
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.is_leaf
    assert_close(layer.weight.detach(), X)


def test_T12_a_list_counts_as_a_sequence_and_a_chain_may_follow() -> None:
    class Pair(RankOne):
        def right_inverse(self, Z: Tensor) -> list[Tensor]:
            return list(super().right_inverse(Z))

    layer = register(nn.Linear(4, 4), Pair(), Symmetric())
    chain = layer.parametrizations.weight
    assert chain.ntensors == 2
    rank_one = torch.outer(chain.original0, chain.original1)
    assert_close(layer.weight, Symmetric()(rank_one))


@pytest.mark.parametrize(
    ("link", "message"),
    [(Row(), "may not change the shape"), (Double(), "may not change the dtype")],
)
@pytest.mark.parametrize("links_before", [0, 1])
def test_T13_unsafe_skips_the_checks_of_shape_and_dtype(
    link: nn.Module, message: str, links_before: int
) -> None:
    layer = register(nn.Linear(3, 3), *[Symmetric()] * links_before)
    with pytest.raises(ValueError, match=message):
        holdfast.register_parametrization(layer, "weight", link)
    assert holdfast.is_parametrized(layer) == bool(links_before)
    holdfast.register_parametrization(layer, "weight", link, unsafe=True)
    assert layer.parametrizations.weight.unsafe
    value = layer.parametrizations.weight.original
    for each in layer.parametrizations.weight:
        value = each(value)
    assert_close(layer.weight, value)
    assert (layer.weight.shape, layer.weight.dtype) != ((3, 3), torch.float32)


class NotATensor(nn.Module):
    def forward(self, X: Tensor) -> tuple[Tensor, int]:
        return X, 1


class NotFinite(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> Tensor:
        return W / 0.0


class NotASequence(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, W: Tensor) -> set[Tensor]:
        return {W}


@pytest.mark.parametrize(
    ("link", "name", "message"),
    [
        (NotATensor(), "weight", "must return a tensor"),
        (NotFinite(), "weight", "NotFinite"),
        (NotASequence(), "weight", "must return a Tensor or a Sequence of tensors"),
        (Symmetric(), "wieght", "does not have a parameter, a buffer"),
    ],
)
def test_T13_unsafe_skips_nothing_else(
    link: nn.Module, name: str, message: str
) -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    with pytest.raises(ValueError, match=message):
        holdfast.register_parametrization(layer, name, link, unsafe=True)
    assert type(layer) is nn.Linear
    assert layer.weight is weight


# ---- T14: the three built-in functions --------------------------------------------

HOSTS = {
    "linear": (lambda: nn.Linear(4, 6), "weight"),
    "wide linear": (lambda: nn.Linear(6, 4), "weight"),
    "square linear": (lambda: nn.Linear(5, 5), "weight"),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), "weight"),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3), "weight"),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 4, 3), "weight"),
    "lstm": (lambda: nn.LSTM(4, 5), "weight_hh_l0"),
    "attention in": (lambda: nn.MultiheadAttention(6, 2), "in_proj_weight"),
    "attention out": (lambda: nn.MultiheadAttention(6, 2).out_proj, "weight"),
}
MATRICES = {k: v for k, v in HOSTS.items() if "conv" not in k}


def twins(host: str) -> tuple[nn.Module, nn.Module, str]:
    make, name = HOSTS[host]
    ours, theirs = make(), make()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, name


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("dim", [0, 1, None])
def test_T14_weight_norm_is_torchs(host: str, dim: int | None) -> None:
    ours, theirs, name = twins(host)
    value = getattr(ours, name).detach().clone()
    assert holdfast.weight_norm(ours, name, dim) is ours
    torch_recipes.weight_norm(theirs, name, dim)
    assert_close(getattr(ours, name).detach(), value)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    assert_close(state, expected)
    factor = torch.randn_like(value)
    for module in (ours, theirs):
        (getattr(module, name) * factor).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(one.grad, other.grad)


@pytest.mark.parametrize("host", list(HOSTS))
def test_T14_spectral_norm_is_torchs(host: str) -> None:
    ours, theirs, name = twins(host)
    assert holdfast.spectral_norm(ours, name, n_power_iterations=2) is ours
    torch_recipes.spectral_norm(theirs, name, n_power_iterations=2)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    factor = torch.randn_like(getattr(theirs, name))
    for module in (ours, theirs):
        (getattr(module, name) * factor).sum().backward()
    assert_close(getattr(ours, name), getattr(theirs, name))
    grads = [
        getattr(module.parametrizations, name).original.grad
        for module in (ours, theirs)
    ]
    assert_close(*grads)


@pytest.mark.parametrize("host", list(HOSTS))
def test_T14_spectral_norm_starts_near_one(host: str) -> None:
    make, name = HOSTS[host]
    module = holdfast.spectral_norm(make(), name)
    axis = 1 if host == "transposed conv" else 0
    matrix = getattr(module, name).detach().transpose(0, axis).flatten(1)
    assert_close(
        torch.linalg.matrix_norm(matrix, 2), torch.tensor(1.0), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("host", list(MATRICES))
@pytest.mark.parametrize("kind", [None, "matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("trivialized", [True, False])
def test_T14_orthogonal_on_every_host(
    host: str, kind: str | None, trivialized: bool
) -> None:
    make, name = HOSTS[host]
    module = make()
    out = holdfast.orthogonal(module, name, kind, use_trivialization=trivialized)
    assert out is module
    weight = getattr(module, name)
    assert_orthogonal(weight)
    (weight * torch.randn_like(weight)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert torch.dist(getattr(module, name), weight) > 1e-3
    assert_orthogonal(getattr(module, name))


@pytest.mark.parametrize("host", list(MATRICES))
@pytest.mark.parametrize("kind", [None, "matrix_exp", "cayley", "householder"])
def test_T14_orthogonal_keeps_an_orthogonal_value(host: str, kind: str | None) -> None:
    make, name = HOSTS[host]
    module = make()
    nn.init.orthogonal_(getattr(module, name))
    value = getattr(module, name).detach().clone()
    holdfast.orthogonal(module, name, kind)
    assert_close(getattr(module, name).detach(), value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("host", ["square linear", "linear", "wide linear"])
def test_T14_an_orthogonal_checkpoint_of_torchs_loads(host: str, kind: str) -> None:
    ours, theirs, name = twins(host)
    holdfast.orthogonal(ours, name, kind)
    torch_recipes.orthogonal(theirs, name, kind)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    # torch keeps the signs of this map on the diagonal, truncated to integers.
    if kind == "householder":
        theirs.parametrizations.weight.original.data.diagonal().fill_(-1.0)
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours.weight, theirs.weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("host", ["square linear", "linear", "wide linear"])
def test_T14_an_orthogonal_checkpoint_of_ours_loads_in_torch(
    host: str, kind: str
) -> None:
    ours, theirs, name = twins(host)
    holdfast.orthogonal(ours, name, kind)
    torch_recipes.orthogonal(theirs, name, kind)
    (ours.weight * torch.randn_like(ours.weight)).sum().backward()
    torch.optim.SGD(ours.parameters(), lr=0.1).step()
    theirs.load_state_dict(ours.state_dict())
    assert_close(theirs.weight, ours.weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("apply", ["orthogonal", "weight_norm", "spectral_norm"])
def test_T14_unknown_names_are_refused(apply: str) -> None:
    with pytest.raises(ValueError, match="wieght"):
        getattr(holdfast, apply)(nn.Linear(3, 3), "wieght")


def test_T14_orthogonal_refuses_what_torch_refuses() -> None:
    with pytest.raises(ValueError, match="Expected a matrix or batch of matrices"):
        holdfast.orthogonal(nn.Linear(3, 3), "bias")
    with pytest.raises(ValueError, match="orthogonal_map has to be one of"):
        holdfast.orthogonal(nn.Linear(3, 3), orthogonal_map="qr")


def test_T14_spectral_norm_refuses_what_torch_refuses() -> None:
    with pytest.raises(ValueError, match="n_power_iterations"):
        holdfast.spectral_norm(nn.Linear(3, 3), n_power_iterations=0)
    with pytest.raises(IndexError, match="Dimension out of range"):
        holdfast.spectral_norm(nn.Linear(3, 3), dim=2)


def test_T14_attention_runs_as_with_torchs_functions() -> None:
    ours = nn.MultiheadAttention(6, 2)
    theirs = nn.MultiheadAttention(6, 2)
    theirs.load_state_dict(ours.state_dict())
    for recipes, module in ((holdfast, ours), (torch_recipes, theirs)):
        recipes.weight_norm(module, "in_proj_weight")
        recipes.weight_norm(module.out_proj, "weight")
    x = torch.randn(3, 2, 6)
    assert_close(ours(x, x, x), theirs(x, x, x))
    with torch.no_grad():  # the fused kernel of evaluation
        assert_close(ours.eval()(x, x, x), theirs.eval()(x, x, x))


@pytest.mark.parametrize(
    "links",
    [
        [maps.Symmetric],
        [maps.Skew],
        [maps.Skew, maps.Cayley],
        [maps.Skew, maps.MatrixExp],
        [maps.Symmetric, maps.MatrixExp],
        [maps.Triangular],
        [maps.Orthogonal],
        [maps.SpectralNorm],
        [maps.WeightNorm],
    ],
    ids=lambda links: "-".join(link.__name__ for link in links),
)
def test_T14_our_maps_work_in_torchs_registration(links: list[type]) -> None:
    ours, theirs = nn.Linear(3, 3), nn.Linear(3, 3)
    for link in links:
        register(ours, link())
        torch_parametrize.register_parametrization(theirs, "weight", link())
    value = ours.weight.detach().clone()
    theirs.weight = value
    assert_close(theirs.weight.detach(), value, atol=1e-5, rtol=0)
    theirs.weight.square().sum().backward()
    assert all(p.grad is not None for p in theirs.parametrizations.parameters())
    theirs.load_state_dict(ours.state_dict(), strict=False)
    assert_close(theirs.eval().weight, ours.eval().weight, atol=1e-5, rtol=0)
