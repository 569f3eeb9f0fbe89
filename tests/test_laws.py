"""The laws: what every map must do, and for each law a map that breaks it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.testing import assert_close

import holdfast
from case import CLOSE, PLAIN, SQUARE, Case, Shape, forward, right_inverse
from cases import CASES, over
from holdfast import Parametrization, maps, sets

EXACT = (torch.float64, torch.complex128)
MARKS = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def broken(make, shapes=SQUARE, codomain=None) -> Case:
    """Return a case around a map that is wrong on purpose."""
    codomain = sets.Stiefel() if codomain is None else codomain
    return Case("broken", lambda _: make(), lambda _: codomain, shapes)


def close(actual: Tensor, expected: Tensor, **changes) -> None:
    tolerances = {"rtol": 0.0, "atol": CLOSE[expected.dtype], **changes}
    assert_close(actual, expected, **tolerances)


class Map(Parametrization):
    """Base of the wrong maps: the identity."""

    codomain = sets.Stiefel()

    def forward(self, X):
        return X

    def right_inverse(self, weight):
        return weight


# ---- The image lies in the codomain ------------------------------------------------


def law_image(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    value = forward(case.bound(shape, dtype), *case.draw(shape, dtype))
    assert value.shape == shape
    assert bool((case.codomain(shape).residual(value) <= CLOSE[dtype]).all())


@over("image")
def test_the_image_lies_in_the_codomain(case, shape, dtype):
    law_image(case, shape, dtype)


class Stretched(Map):
    def forward(self, X):
        return 1.0001 * maps.Cayley()(X)


def test_the_image_law_rejects_a_map_that_misses_by_a_little():
    with pytest.raises(AssertionError):
        law_image(broken(lambda: [maps.Skew(), Stretched()]), (4, 4), torch.float32)


# ---- The right inverse is one, on the codomain --------------------------------------


def law_right_inverse(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    W = case.codomain(shape).sample(shape, dtype=dtype)
    chain = case.bound(shape, dtype)
    originals = right_inverse(chain, W)
    close(forward(chain, *originals), W)
    for original in originals:
        assert original.is_contiguous()


@over("right_inverse")
def test_the_right_inverse_is_one_on_the_codomain(case, shape, dtype):
    law_right_inverse(case, shape, dtype)


class Rotations(sets.Constraint):
    """The orthogonal matrices that the tutorial's inverse takes: those near I."""

    residual = sets.Stiefel.residual
    project = sets.Stiefel.project
    dim = sets.Stiefel.dim

    def from_normal(self, normal):
        return maps.Cayley()(maps.Skew()(normal))


class TutorialCayley(Map):
    """The tutorial's, with its sign error."""

    def forward(self, X):
        identity = torch.eye(X.shape[-1], dtype=X.dtype)
        return torch.linalg.solve(identity - X, identity + X)

    def right_inverse(self, weight):
        identity = torch.eye(weight.shape[-1], dtype=weight.dtype)
        return torch.linalg.solve(weight + identity, identity - weight)


def test_T9_the_right_inverse_law_rejects_the_tutorials_sign():
    wrong = broken(lambda: [maps.Skew(), TutorialCayley()], codomain=Rotations())
    with pytest.raises(AssertionError, match="not close"):
        law_right_inverse(wrong, (4, 4), torch.float64)


# ---- Projection ---------------------------------------------------------------------


def law_projection(
    constraint: sets.Constraint, shape: Shape, dtype: torch.dtype
) -> None:
    W = torch.randn(shape, dtype=dtype)
    P = constraint.project(W)
    assert P.shape == shape
    assert P.dtype == dtype
    assert constraint.contains(P)
    close(constraint.project(P), P, rtol=CLOSE[dtype])


@over("projection")
def test_projection_is_idempotent_and_lands_in_the_set(case, shape, dtype):
    law_projection(case.codomain(shape), shape, dtype)


class HalfWay(sets.Constraint):
    """Projects half of the way."""

    def residual(self, weight):
        return sets.SkewMatrices().residual(weight)

    def project(self, weight):
        return (weight + sets.SkewMatrices().project(weight)) / 2

    def from_normal(self, normal):
        return normal

    def dim(self, shape, dtype=torch.float32):
        return 0


def test_the_projection_law_rejects_half_a_projection():
    with pytest.raises(AssertionError):
        law_projection(HalfWay(), (4, 4), torch.float64)


# ---- Derivatives --------------------------------------------------------------------


def law_gradient(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    chain = case.bound(shape, dtype)
    originals = [x.requires_grad_() for x in case.draw(shape, dtype)]
    assert torch.autograd.gradcheck(lambda *x: forward(chain, *x), originals)


@over("gradient", EXACT, ((2, 3, 3), (5, 3), (3, 5), (1, 1), (6,)))
def test_the_gradient_is_that_of_finite_differences(case, shape, dtype):
    law_gradient(case, shape, dtype)


def law_second_derivative(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    chain = case.bound(shape, dtype)
    originals = [x.requires_grad_() for x in case.draw(shape, dtype)]
    assert torch.autograd.gradgradcheck(lambda *x: forward(chain, *x), originals)


@over("gradient", (torch.float64,), ((4, 4), (5, 3), (6,)))
def test_the_second_derivative_is_that_of_finite_differences(case, shape, dtype):
    law_second_derivative(case, shape, dtype)


class Detached(Map):
    def forward(self, X):
        return maps.Cayley()(X) @ maps.Cayley()(X.detach())


class Kept(torch.autograd.Function):
    """A square whose gradient counts what it kept as a constant."""

    @staticmethod
    def forward(ctx, X):
        ctx.kept = 2 * X.detach()
        return X * X

    @staticmethod
    def backward(ctx, G):
        return G * ctx.kept


class OnceDifferentiable(Map):
    def forward(self, X):
        return Kept.apply(X)


def test_the_second_derivative_law_rejects_what_can_be_differentiated_once():
    case = broken(lambda: [OnceDifferentiable()])
    law_gradient(case, (4, 4), torch.float64)
    with pytest.raises((AssertionError, GradcheckError)):
        law_second_derivative(case, (4, 4), torch.float64)


def test_the_gradient_law_rejects_a_detached_factor():
    with pytest.raises((AssertionError, GradcheckError)):
        law_gradient(broken(lambda: [maps.Skew(), Detached()]), (4, 4), torch.float64)


# ---- Batches ------------------------------------------------------------------------


def law_batch(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    single, originals = case.bound(shape, dtype), case.draw((3, *shape), dtype)
    batch = case.bound((3, *shape), dtype)
    values = forward(batch, *originals)
    loop = [forward(single, *each) for each in zip(*originals, strict=True)]
    close(values, torch.stack(loop))
    if "right_inverse" not in case.exceptions:
        W = case.codomain(shape).sample((3, *shape), dtype=dtype)
        back = forward(batch, *right_inverse(batch, W))
        loop = [forward(single, *right_inverse(single, w)) for w in W]
        close(back, torch.stack(loop))


@over("batch", (torch.float32, *EXACT), ((1, 1), *PLAIN))
def test_a_batch_is_a_loop(case, shape, dtype):
    law_batch(case, shape, dtype)


class Mixing(Map):
    def forward(self, X):
        return maps.Cayley()(X - X.mean()) if X.ndim == 2 else maps.Cayley()(2 * X)


def test_the_batch_law_rejects_a_map_that_treats_batches_differently():
    with pytest.raises(AssertionError):
        law_batch(broken(lambda: [maps.Skew(), Mixing()]), (4, 4), torch.float64)


# ---- Types --------------------------------------------------------------------------


def law_dtype(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    chain, originals = case.bound(shape, dtype), case.draw(shape, dtype)
    value = forward(chain, *originals)
    assert value.dtype == dtype
    if "right_inverse" not in case.exceptions:
        W = case.codomain(shape).sample(shape, dtype=dtype)
        assert {t.dtype for t in right_inverse(chain, W)} <= {dtype, dtype.to_real()}


@over("dtype", shapes=PLAIN)
def test_N1_the_dtype_is_kept(case, shape, dtype):
    law_dtype(case, shape, dtype)


class Single(Map):
    def forward(self, X):
        return maps.Cayley()(X.float())


def test_the_dtype_law_rejects_a_silent_cast():
    with pytest.raises(AssertionError):
        law_dtype(broken(lambda: [maps.Skew(), Single()]), (4, 4), torch.float64)


def law_autocast(case: Case, shape: Shape) -> None:
    chain, originals = case.bound(shape, torch.float32), case.draw(shape, torch.float32)
    expected = forward(chain, *originals)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward(chain, *originals), expected, rtol=0, atol=0)


@over("autocast", (torch.float32,), PLAIN)
def test_N1_autocast_changes_nothing(case, shape, dtype):
    law_autocast(case, shape)


class Product(Map):
    def forward(self, X):
        return X @ X


def test_the_autocast_law_rejects_a_plain_product():
    with pytest.raises(AssertionError):
        law_autocast(broken(lambda: [Product()]), (4, 4))


# ---- Registering and removing -------------------------------------------------------


def law_registering(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    W = case.codomain(shape).sample(shape, dtype=dtype)
    if len(case.make(shape)) == 1:
        host = case.registered(W.clone()).eval()
        assert host.parametrizations.weight.moved <= 10 * CLOSE[dtype]
    else:  # a chain of several takes its value by assignment
        host = case.registered(torch.randn_like(W)).eval()
        host.weight = W
    close(host.weight, W)
    value = host.weight.detach()
    holdfast.remove_parametrizations(host, "weight")
    assert_close(host.weight.detach(), value, rtol=0, atol=0)


@over("registering", (torch.float32, *EXACT))
def test_registering_and_removing_keep_the_value(case, shape, dtype):
    law_registering(case, shape, dtype)


class Drifting(Map):
    def right_inverse(self, weight):
        return 1.001 * weight


class Noisy(Map):
    def forward(self, X):
        return X + 1e-8 * torch.randn_like(X)


@pytest.mark.parametrize("wrong", [Drifting, Noisy])
def test_the_registering_law_rejects_a_value_that_moves(wrong):
    with pytest.raises(AssertionError):
        law_registering(broken(lambda: [wrong()]), (4, 4), torch.float32)


# ---- Training -----------------------------------------------------------------------


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


def law_optimizer(case: Case, shape: Shape, dtype: torch.dtype, optimizer) -> None:
    host = case.registered(torch.randn(shape, dtype=dtype) / 2)
    steps = optimizer(host.parameters())
    before, target = host.weight.detach().clone(), torch.randn(shape, dtype=dtype)
    for _ in range(3):
        steps.zero_grad()
        host(target).backward()
        steps.step()
        assert bool((case.codomain(shape).residual(host.weight) <= 1e-5).all())
    free = host.weight.numel() and case.codomain(shape).dim(shape) > 0
    assert not free or not torch.equal(host.weight, before)


@pytest.mark.parametrize("optimizer", [adamw, sgd])
@over("optimizer", (torch.float32,))
def test_N4_optimizer_steps_keep_the_constraint(case, shape, dtype, optimizer):
    law_optimizer(case, shape, dtype, optimizer)


class SignsInTheOriginal(Map):
    """torch's: the signs are the integers on the diagonal."""

    def forward(self, X):
        Q = maps.Householder()(X.tril(-1))
        return Q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    def right_inverse(self, weight):
        return maps.Householder().right_inverse(weight)


def test_N4_the_optimizer_law_rejects_signs_in_a_trainable_tensor():
    wrong = broken(lambda: [SignsInTheOriginal()], ((5, 3),))
    with pytest.raises(AssertionError):
        law_optimizer(wrong, (5, 3), torch.float32, adamw)


# ---- Copies and checkpoints ---------------------------------------------------------


def law_copies(case: Case, shape: Shape) -> None:
    host = case.registered(torch.randn(shape)).eval()
    if "right_inverse" not in case.exceptions:
        host.weight = case.codomain(shape).sample(shape)
    loaded = case.registered(torch.randn(shape)).eval()
    loaded.load_state_dict(host.state_dict())
    for twin in (loaded, copy.deepcopy(host), pickle.loads(pickle.dumps(host))):
        assert_close(twin.weight, host.weight, rtol=0, atol=0)
        assert str(twin) == str(host)


@over("copies", (torch.float32,), (*PLAIN, (0, 3, 3), (6,), (4, 2, 3, 3)))
def test_a_state_dict_a_copy_and_a_pickle_give_the_same_weight(case, shape, dtype):
    law_copies(case, shape)


class Forgetful(Map):
    """Keeps what it needs where no state dict looks."""

    base: Tensor | None = None

    def forward(self, X):
        return X if self.base is None else X + self.base

    def right_inverse(self, weight):
        self.base = weight
        return torch.zeros_like(weight)


def test_the_copies_law_rejects_state_outside_the_state_dict():
    with pytest.raises(AssertionError):
        law_copies(broken(lambda: [Forgetful()]), (4, 4))


def law_safetensors(case: Case, shape: Shape, path) -> None:
    host = case.registered(torch.randn(shape)).eval()
    if "right_inverse" not in case.exceptions:
        host.weight = case.codomain(shape).sample(shape)
    save_file(host.state_dict(), path)
    loaded = case.registered(torch.randn(shape)).eval()
    loaded.load_state_dict(load_file(path))
    assert_close(loaded.weight, host.weight, rtol=0, atol=0)
    holdfast.remove_parametrizations(host, "weight")
    save_file(host.state_dict(), path)


@over("safetensors", (torch.float32,), PLAIN)
def test_X3_safetensors_saves_every_state_dict(case, shape, dtype, tmp_path):
    law_safetensors(case, shape, tmp_path / "layer.safetensors")


class Strided(Map):
    def right_inverse(self, weight):
        self.register_buffer("base", weight.mT.contiguous().mT)
        return weight


def test_X3_the_safetensors_law_rejects_a_strided_buffer(tmp_path):
    wrong = broken(lambda: [Strided()])
    with pytest.raises(ValueError, match="non contiguous"):
        law_safetensors(wrong, (4, 4), tmp_path / "layer.safetensors")


def law_spec(case: Case, shape: Shape) -> None:
    for link in case.make(shape):
        twin = type(link)(**link.spec())
        assert repr(twin) == repr(link)
        assert twin.spec().keys() == link.spec().keys()
        for name, value in link.spec().items():
            again = twin.spec()[name]
            assert value is again if isinstance(value, Tensor) else value == again


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_spec_rebuilds_the_maps(case):
    law_spec(case, case.shapes[0])


class Doubling(Map):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = 2 * factor


def test_the_spec_law_rejects_an_argument_that_is_changed():
    with pytest.raises(AssertionError):
        law_spec(broken(lambda: [Doubling(3.0)]), (4, 4))


def law_meta(case: Case, shape: Shape) -> None:
    with torch.device("meta"):
        host = case.registered(torch.randn(shape))
    assert host.weight.shape == shape
    source = case.registered(torch.randn(shape)).eval()
    host.to_empty(device="cpu").eval()
    host.load_state_dict(source.state_dict())
    assert_close(host.weight, source.weight, rtol=0, atol=0)


@over("meta", (torch.float32,), (*PLAIN, (2, 3, 3), (6,), (4, 2, 3, 3)))
def test_L1_a_case_registers_on_the_meta_device(case, shape, dtype):
    law_meta(case, shape)


class Branching(Map):
    def right_inverse(self, weight):
        return weight if float(weight.sum()) > 0 else weight.clone()


def test_L1_the_meta_law_rejects_a_branch_on_values():
    with pytest.raises((RuntimeError, ValueError)):
        law_meta(broken(lambda: [Branching()]), (4, 4))


# ---- Function transforms ------------------------------------------------------------


def law_transforms(case: Case, shape: Shape) -> None:
    dtype = torch.float64
    chain, originals = case.bound(shape, dtype), case.draw(shape, dtype)
    tangents, weights = case.draw(shape, dtype), torch.randn(shape, dtype=dtype)

    def value(*x):
        return forward(chain, *x)

    def loss(*x):
        return (weights * value(*x) ** 2).sum()

    which = tuple(range(len(originals)))
    stacked = [torch.stack([x, -x, 2 * x]) for x in originals]
    loop = [value(*xs) for xs in zip(*stacked, strict=True)]
    assert_close(vmap(value)(*stacked), torch.stack(loop))

    leaves = [x.clone().requires_grad_() for x in originals]
    slopes = torch.autograd.grad(loss(*leaves), leaves)
    for mine, expected in zip(grad(loss, which)(*originals), slopes, strict=True):
        assert_close(mine, expected)
    along = jvp(loss, originals, tangents)[1]
    assert_close(
        along, sum((g * t).sum() for g, t in zip(slopes, tangents, strict=True))
    )
    jacobians = jacrev(value, which)(*originals)
    columns = jvp(value, originals, tangents)[1]
    products = [
        J.reshape(*shape, -1) @ t.flatten()
        for J, t in zip(jacobians, tangents, strict=True)
    ]
    assert_close(columns, sum(products))
    second = hessian(loss, len(which) - 1)(*originals)
    n = originals[-1].numel()
    assert_close(second.reshape(n, n), second.reshape(n, n).mT)


@MARKS
@over("transforms", (torch.float64,), (*PLAIN, (2, 3, 3), (6,)))
def test_F1_function_transforms_go_through(case, shape, dtype):
    law_transforms(case, shape)


class Host1(Map):
    def forward(self, X):
        return X * float(X.sum())


def test_F1_the_transforms_law_rejects_a_number_read_from_a_tensor():
    with pytest.raises((RuntimeError, ValueError)):
        law_transforms(broken(lambda: [Host1()]), (4, 4))


# ---- torch.compile ------------------------------------------------------------------


def law_compile(case: Case, shape: Shape) -> None:
    host = case.registered(torch.randn(shape)).eval()
    x = torch.randn(shape)
    expected = host(x)
    slopes = torch.autograd.grad(expected, [*host.parameters()])
    torch._dynamo.reset()
    compiled = torch.compile(host, backend="aot_eager", fullgraph=True)(x)
    assert_close(compiled, expected)
    for mine, slope in zip(
        torch.autograd.grad(compiled, [*host.parameters()]), slopes, strict=True
    ):
        assert_close(mine, slope)


COMPILED = (
    "cayley",
    "thin cayley",
    "definite",
    "orthogonal matrix_exp",
    "orthogonal cayley",
    "orthogonal householder",
    "polar",
    "matricized thin cayley -1",
    "scaled orthogonal",
    "weight norm 0",
    "spectral norm 0",
    "toeplitz",
    "plu one",
    "invertible svd positive",
    "cholesky of rank 2",
    "spectral softplus",
    "normalize -1",
    "great circles -2",
    "standardize -1",
    "clip 2-norm -2",
    "radial sigmoid -1",
    "spectral bound",
    "sigma reparam 0",
    "bounded svd 0.5",
)


@over("compile", (torch.float32,), ((4, 4), (5, 3)), COMPILED)
def test_compiled_values_and_gradients_are_the_same(case, shape, dtype):
    law_compile(case, shape)


class Frozen(Map):
    """Compiles to another value than it computes."""

    def forward(self, X):
        return X * (1 if torch.compiler.is_compiling() else 2)


def test_the_compile_law_rejects_a_map_that_asks_whether_it_is_compiled():
    with pytest.raises(AssertionError):
        law_compile(broken(lambda: [Frozen()]), (4, 4))
