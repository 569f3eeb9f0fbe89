"""Function transforms: F1."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.testing import assert_close

import holdfast
from holdfast import maps
from support import state_of

KEY = "parametrizations.weight.original"


def chain(*links: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def register(module: nn.Module) -> nn.Module:
        for link in links:
            holdfast.register_parametrization(module, "weight", link())
        return module

    return register


# Every built-in function and map; those of square matrices alone stand apart.
ANY: dict[str, Callable[[nn.Module], nn.Module]] = {
    "exponential": lambda m: holdfast.orthogonal(m, "weight", "matrix_exp"),
    "cayley": lambda m: holdfast.orthogonal(m, "weight", "cayley"),
    "householder": lambda m: holdfast.orthogonal(m, "weight", "householder"),
    "static exponential": lambda m: holdfast.orthogonal(
        m, "weight", "matrix_exp", use_trivialization=False
    ),
    "static cayley": lambda m: holdfast.orthogonal(
        m, "weight", "cayley", use_trivialization=False
    ),
    "weight norm": holdfast.weight_norm,
    "weight norm of all": lambda m: holdfast.weight_norm(m, "weight", None),
    "spectral norm": holdfast.spectral_norm,
    "triangular": chain(maps.Triangular),
    "mask": lambda m: chain(lambda: maps.Mask(m.weight.detach() > 0))(m),
    "householder alone": chain(maps.Householder),
}
SQUARE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "symmetric": chain(maps.Symmetric),
    "skew": chain(maps.Skew),
    "skew, cayley": chain(maps.Skew, maps.Cayley),
    "skew, exponential": chain(maps.Skew, maps.MatrixExp),
    "symmetric, exponential": chain(maps.Symmetric, maps.MatrixExp),
}
RECIPES = ANY | SQUARE
SHAPES = {"square": (3, 3), "tall": (4, 2), "wide": (2, 4)}
every_map = pytest.mark.parametrize("recipe", list(RECIPES))
every_map_and_shape = pytest.mark.parametrize(
    ("recipe", "shape"),
    [(recipe, shape) for recipe in ANY for shape in SHAPES]
    + [(recipe, "square") for recipe in SQUARE],
)

Originals = dict[str, Tensor]


class Symmetric(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT

    def right_inverse(self, W: Tensor) -> Tensor:
        return W.triu()


def symmetric_layer() -> nn.Module:
    layer = nn.Linear(3, 3)
    return holdfast.register_parametrization(layer, "weight", Symmetric())


def setting(recipe: str, shape: str) -> tuple[nn.Module, Originals, Tensor]:
    """Return a layer in float64, a point near its originals, and an input."""
    n, k = SHAPES[shape]
    layer = RECIPES[recipe](nn.Linear(k, n, dtype=torch.float64)).eval()
    point = {
        name: (p + 0.1 * torch.randn_like(p)).detach()
        for name, p in layer.named_parameters()
        if name.startswith("parametrizations")
    }
    return layer, point, torch.randn(5, k, dtype=torch.float64)


def loss_of(layer: nn.Module, x: Tensor) -> Callable[[Originals], Tensor]:
    def loss(originals: Originals) -> Tensor:
        return torch.func.functional_call(layer, originals, (x,)).sin().sum()

    return loss


def ordinary_loss(layer: nn.Module, originals: Originals, x: Tensor) -> Tensor:
    """Return the loss with the originals really stored in the layer."""
    layer.load_state_dict(originals, strict=False)
    return layer(x).sin().sum()


def moved(point: Originals, way: Originals, t: float) -> Originals:
    return {name: point[name] + t * way[name] for name in point}


def directions(point: Originals) -> Originals:
    return {name: torch.randn_like(value) for name, value in point.items()}


def inner(a: Originals, b: Originals) -> Tensor:
    return sum(((a[name] * b[name]).sum() for name in a), torch.zeros(()))


def slope(f: Callable[[float], Tensor], h: float = 1e-4) -> Tensor:
    """Differentiate at zero, to fourth order in ``h``."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


# ---- functional_call --------------------------------------------------------------


def test_F1_the_original_is_differentiated_through_the_map() -> None:
    layer, x = symmetric_layer(), torch.randn(4, 3)
    given = torch.randn(3, 3, requires_grad=True)
    out = torch.func.functional_call(layer, {KEY: given}, (x,))
    W = given.triu() + given.triu(1).T
    assert_close(out, x @ W.T + layer.bias)
    (grad,) = torch.autograd.grad(out.square().sum(), given)
    (expected,) = torch.autograd.grad((x @ W.T + layer.bias).square().sum(), given)
    assert_close(grad, expected)
    assert grad.tril(-1).abs().max() == 0  # the lower triangle is not used
    assert layer.parametrizations.weight.original.grad is None


def test_F1_several_originals() -> None:
    layer, x = holdfast.weight_norm(nn.Linear(3, 3)), torch.randn(4, 3)
    g = torch.rand(3, 1, requires_grad=True)
    v = torch.randn(3, 3, requires_grad=True)
    keys = [f"parametrizations.weight.original{i}" for i in range(2)]
    given = dict(zip(keys, (g, v), strict=True))
    out = torch.func.functional_call(layer, given, (x,))
    W = g * v / v.norm(dim=1, keepdim=True)
    assert_close(out, x @ W.T + layer.bias)
    grads = torch.autograd.grad(out.square().sum(), (g, v))
    expected = torch.autograd.grad((x @ W.T + layer.bias).square().sum(), (g, v))
    assert_close(grads, expected)


def test_F1_the_plain_name_overrides_the_value() -> None:
    layer, x = symmetric_layer(), torch.randn(4, 3)
    before = state_of(layer)
    given = torch.randn(3, 3, requires_grad=True)  # not symmetric at all
    out = torch.func.functional_call(layer, {"weight": given}, (x,))
    assert_close(out, x @ given.T + layer.bias)
    (grad,) = torch.autograd.grad(out.sum(), given)
    assert_close(grad, x.sum(0).expand(3, 3))
    assert state_of(layer) == before
    assert_close(layer.weight, layer.weight.T, atol=0, rtol=0)


@every_map
def test_F1_the_plain_name_overrides_every_map(recipe: str) -> None:
    layer, _, x = setting(recipe, "square")
    before = state_of(layer)
    given = torch.randn(3, 3, dtype=torch.float64)
    out = torch.func.functional_call(layer, {"weight": given}, (x,))
    assert_close(out, x @ given.T + layer.bias)
    assert state_of(layer) == before


def test_F1_the_plain_name_in_a_tree_of_modules() -> None:
    model = nn.Sequential(symmetric_layer(), nn.Tanh(), symmetric_layer())
    x, given = torch.randn(4, 3), torch.randn(3, 3)
    before = state_of(model)
    out = torch.func.functional_call(model, {"2.weight": given}, (x,))
    assert_close(out, model[:2](x) @ given.T + model[2].bias)
    assert state_of(model) == before


def test_F1_the_plain_name_under_grad_and_vmap() -> None:
    layer, x = symmetric_layer(), torch.randn(4, 3)
    before = state_of(layer)

    def loss(W: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": W}, (x,)).sum()

    batch = torch.randn(5, 3, 3)
    assert_close(torch.func.grad(loss)(batch[0]), x.sum(0).expand(3, 3))
    expected = torch.stack([loss(W) for W in batch])
    assert_close(torch.vmap(loss)(batch), expected)
    assert state_of(layer) == before


@pytest.mark.parametrize("name", [KEY, "weight", "bias"])
def test_F1_a_failing_call_leaves_the_model_unchanged(name: str) -> None:
    layer = symmetric_layer()
    before, value = state_of(layer), layer.weight.detach().clone()
    tensor = torch.randn(()) if name == "bias" else torch.randn(3, 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        torch.func.functional_call(layer, {name: tensor}, (torch.randn(4, 7),))
    assert state_of(layer) == before
    assert_close(layer.weight.detach(), value, atol=0, rtol=0)
    assert torch.func.functional_call(layer, {}, (torch.randn(4, 3),)).shape == (4, 3)


@pytest.mark.parametrize("name", [KEY, "weight"])
def test_F1_a_given_tensor_of_the_wrong_shape_leaves_it_unchanged(name: str) -> None:
    layer = symmetric_layer()
    before = state_of(layer)
    with pytest.raises(RuntimeError):
        torch.func.functional_call(
            layer, {name: torch.randn(5, 5)}, (torch.randn(4, 3),)
        )
    assert state_of(layer) == before


def test_F1_a_map_that_fails_leaves_the_model_unchanged() -> None:
    class Fussy(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            if X.sum() > 100:
                raise ArithmeticError("too large")
            return X

    layer = nn.Linear(3, 3)
    holdfast.register_parametrization(layer, "weight", Fussy())
    before = state_of(layer)
    with pytest.raises(ArithmeticError, match="too large"):
        torch.func.functional_call(
            layer, {KEY: torch.full((3, 3), 99.0)}, (torch.randn(4, 3),)
        )
    assert state_of(layer) == before


def test_F1_control_torch_changes_the_model() -> None:
    layer = torch_recipes.orthogonal(nn.Linear(3, 3))
    before = state_of(layer)
    given, x = torch.randn(3, 3), torch.randn(4, 3)
    out = torch.func.functional_call(layer, {"weight": given}, (x,))
    assert torch.dist(out, x @ given.T + layer.bias) > 1e-2
    assert state_of(layer) != before


# ---- grad, jvp, vmap, hessian -----------------------------------------------------


@every_map_and_shape
def test_F1_grad_and_jvp_go_through_every_map(recipe: str, shape: str) -> None:
    layer, point, x = setting(recipe, shape)
    loss = loss_of(layer, x)
    grad = torch.func.grad(loss)(point)
    way = directions(point)
    value, tangent = torch.func.jvp(loss, (point,), (way,))
    _, pull = torch.func.vjp(loss, point)
    assert_close(pull(torch.ones_like(value))[0], grad)
    assert_close(tangent, inner(grad, way))
    # And both are right: the layer itself, moved along the direction.
    with torch.no_grad():
        expected = slope(lambda t: ordinary_loss(layer, moved(point, way, t), x))
    assert_close(tangent, expected, atol=1e-8, rtol=1e-6)
    assert abs(expected) > 1e-3
    # The ordinary backward pass agrees.
    ordinary_loss(layer, point, x).backward()
    named = dict(layer.named_parameters())
    assert_close({name: named[name].grad for name in point}, grad)


@every_map_and_shape
def test_F1_vmap_goes_through_every_map(recipe: str, shape: str) -> None:
    layer, point, x = setting(recipe, shape)
    loss = loss_of(layer, x)
    points = [moved(point, directions(point), 0.1) for _ in range(3)]
    batch = {name: torch.stack([p[name] for p in points]) for name in point}
    one_by_one = torch.stack([ordinary_loss(layer, p, x).detach() for p in points])
    assert_close(torch.vmap(loss)(batch), one_by_one)
    assert one_by_one.std() > 1e-4
    grads = torch.vmap(torch.func.grad(loss))(batch)
    for name, rows in grads.items():
        expected = torch.stack([torch.func.grad(loss)(p)[name] for p in points])
        assert_close(rows, expected)


@every_map_and_shape
def test_F1_hessian_goes_through_every_map(recipe: str, shape: str) -> None:
    layer, point, x = setting(recipe, shape)
    name = sorted(point)[-1]
    rest = {k: v for k, v in point.items() if k != name}

    def loss(X: Tensor) -> Tensor:
        return loss_of(layer, x)({name: X, **rest})

    X, V = point[name], torch.randn_like(point[name])
    n = X.numel()
    hessian = torch.func.hessian(loss)(X).reshape(n, n)
    grad = torch.func.grad(loss)
    assert_close(hessian, hessian.T)
    product = hessian @ V.flatten()
    expected = slope(lambda t: grad(X + t * V)).flatten()
    assert_close(product, expected, atol=1e-7, rtol=1e-6)
    assert hessian.abs().max() > 1e-3
    # Reverse over reverse gives the same.
    reverse = torch.func.jacrev(grad)(X).reshape(n, n)
    assert_close(reverse, hessian)


@every_map
def test_F1_jacobians_of_the_weight(recipe: str) -> None:
    layer, point, _ = setting(recipe, "square")
    name = sorted(point)[-1]
    eye = torch.eye(3, dtype=torch.float64)
    rest = {k: v for k, v in point.items() if k != name}

    def weight(X: Tensor) -> Tensor:
        given = {name: X, **rest, "bias": torch.zeros_like(layer.bias)}
        return torch.func.functional_call(layer, given, (eye,))

    forward = torch.func.jacfwd(weight)(point[name])
    backward = torch.func.jacrev(weight)(point[name])
    assert_close(forward, backward)
    assert forward.abs().max() > 1e-2


@every_map
def test_F1_second_derivatives_by_autograd(recipe: str) -> None:
    layer, point, x = setting(recipe, "square")
    layer.load_state_dict(point, strict=False)
    originals = [dict(layer.named_parameters())[name] for name in sorted(point)]

    def value(*given: Tensor) -> Tensor:
        named = dict(zip(sorted(point), given, strict=True))
        return torch.func.functional_call(layer, named, (x,))

    assert torch.autograd.gradcheck(value, originals, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, originals)


def test_F1_models_in_an_ensemble() -> None:
    layers = [symmetric_layer() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(4, 3)

    def call(parameters: Originals, buffers: Originals) -> Tensor:
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,))

    out = torch.vmap(call)(parameters, buffers)
    assert_close(out, torch.stack([layer(x) for layer in layers]))
