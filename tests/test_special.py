"""Orthogonal and unitary weights of determinant 1, and what is refused on the way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import holdfast
from holdfast import errors, maps, sets
from holdfast.testing.case import Host
from support import state_of, told

KINDS = ("matrix_exp", "cayley", "householder")
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


def special(kind: str, weight: Tensor, *, based: bool = True) -> Host:
    map_ = maps.Orthogonal(kind, use_trivialization=based, special=True)
    host = Host(weight)
    holdfast.register_parametrization(host, "weight", map_)
    return host


def reflection(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a random orthogonal matrix of determinant -1."""
    Q = sets.SpecialOrthogonal().sample((n, n), dtype=dtype)
    return torch.cat([-Q[:, :1], Q[:, 1:]], 1)


def mixed(n: int) -> Tensor:
    """Return a batch of random matrices with determinants of both signs."""
    W = torch.randn(4, n, n, dtype=torch.float64)
    W[::2, 0] *= torch.linalg.det(W[::2]).sign()[:, None]
    W[1::2, 0] *= -torch.linalg.det(W[1::2]).sign()[:, None]
    return W


# ---- Real ---------------------------------------------------------------------------


@ALL_KINDS
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_registering_moves_the_value_to_the_nearest_rotation(kind, n):
    W = mixed(n)
    host = special(kind, W.clone())
    assert_close(host.weight, sets.SpecialOrthogonal().project(W))
    assert host.parametrizations.weight.moved > 0


@ALL_KINDS
def test_without_special_the_value_keeps_its_determinant(kind):
    """The control: by default both determinants are reached."""
    W = reflection(3)
    host = holdfast.orthogonal(Host(W.clone()), orthogonal_map=kind)
    assert_close(host.weight, W)
    assert not sets.SpecialOrthogonal().contains(host.weight)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("based", [True, False])
@ALL_KINDS
def test_the_determinant_is_one_for_all_coordinates(kind, based, n):
    host = special(kind, mixed(n), based=based)
    original = host.parametrizations.weight.original
    for size in (1e-3, 1.0, 30.0):
        with torch.no_grad():
            original.copy_(size * torch.randn_like(original))
        assert_close(torch.linalg.det(host.weight), torch.ones(4).double())


@ALL_KINDS
def test_a_reflection_cannot_be_assigned(kind):
    host = special(kind, torch.eye(3).double())
    before = state_of(host)
    with pytest.raises(
        errors.NotInSetError, match=r"in SpecialOrthogonal\(\) of `Orthogonal`: resid"
    ):
        host.weight = reflection(3)
    assert state_of(host) == before
    with pytest.raises(errors.NotInSetError, match="Expected a tensor in SpecialOrtho"):
        maps.Orthogonal(kind, special=True).right_inverse(reflection(3))
    Q = sets.SpecialOrthogonal().sample((3, 3), dtype=torch.float64)
    host.weight = Q
    assert_close(host.weight, Q)


def test_a_reflection_is_moved_where_the_user_says_so():
    host = Host(torch.eye(3).double())
    map_ = maps.Orthogonal("cayley", special=True)
    holdfast.register_parametrization(host, "weight", map_, outside="project")
    W = reflection(3)
    host.weight = W
    assert_close(host.weight, sets.SpecialOrthogonal().project(W))


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley"])
def test_without_a_base_there_is_no_right_inverse(kind):
    host = special(kind, torch.eye(3).double(), based=False)
    with pytest.raises(errors.NoRightInverseError, match="use_trivialization=False"):
        host.weight = torch.eye(3).double()


# ---- Refused ------------------------------------------------------------------------


def refused(weight: Tensor, **arguments: object) -> str:
    """Return what is said, and see that nothing has changed."""
    host = Host(weight)
    before = state_of(host)
    with pytest.raises((ValueError, errors.InvalidTensorError)) as caught:
        holdfast.orthogonal(host, **arguments)
    assert state_of(host) == before
    return told(caught.value)


@ALL_KINDS
def test_only_square_matrices_have_a_determinant(kind):
    said = refused(torch.randn(5, 3), orthogonal_map=kind, special=True)
    assert "special=True asks for determinant 1, which only square" in said
    assert "(5, 3)" in said
    assert "Host.weight" in said
    assert "determinant 1" in refused(torch.randn(5, 3), special=True)


def test_thin_maps_have_no_determinant():
    said = refused(torch.randn(3, 3), orthogonal_map="thin_cayley", special=True)
    assert (
        '`Host.weight`: special=True takes a map for square matrices, such as "matr'
        in (said)
    )


def test_complex_matrices_take_the_exponential():
    W = torch.randn(3, 3, dtype=torch.complex64)
    said = refused(W, orthogonal_map="cayley", special=True)
    assert 'does not have determinant 1. Use "matrix_exp"' in said
    said = refused(W, orthogonal_map="householder", special=True)
    assert "does not support complex" in said


def test_the_cayley_transform_of_a_traceless_matrix_is_not_special():
    """Why it is refused."""
    A = torch.diag(torch.tensor([1j, 2j, -3j]).to(torch.complex128))
    det = torch.linalg.det(maps.Cayley()(A))
    assert abs(abs(complex(det)) - 1) < 1e-12
    assert abs(complex(det) - 1) > 0.1


# ---- Complex ------------------------------------------------------------------------


def unitary(*shape: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return sets.Unitary().sample(shape, dtype=dtype)


@pytest.mark.parametrize("based", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_complex_values_have_determinant_one(n, based):
    host = special("matrix_exp", unitary(4, n, n), based=based)
    original = host.parametrizations.weight.original
    with torch.no_grad():
        original.copy_(3 * torch.randn_like(original))
    assert_close(torch.linalg.det(host.weight), torch.ones(4).to(original))
    holdfast.remove_parametrizations(host, "weight")
    holdfast.orthogonal(host, use_trivialization=based)  # the control
    chain = host.parametrizations.weight
    with torch.no_grad():
        chain.original.copy_(3 * torch.randn_like(original))
    assert float((torch.linalg.det(host.weight.detach()) - 1).abs().max()) > 0.1


def test_a_unitary_matrix_of_another_determinant_is_moved_or_refused():
    W = unitary(3, 3)
    host = special("matrix_exp", W.clone())
    assert_close(host.weight, sets.SpecialUnitary().project(W))
    with pytest.raises(errors.NotInSetError, match="SpecialUnitary"):
        host.weight = W
    Q = sets.SpecialUnitary().sample((3, 3), dtype=torch.complex128)
    host.weight = Q
    assert_close(host.weight, Q)
    unbound = maps.Orthogonal(special=True)
    assert_close(unbound(unbound.right_inverse(Q)), Q)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_slopes_at_the_base_are_those_of_finite_differences(dtype):
    """Zero coordinates take a way of their own."""
    map_ = maps.Orthogonal(special=True)
    map_.bind(torch.zeros(3, 3, dtype=dtype))
    group = sets.SpecialUnitary() if dtype.is_complex else sets.SpecialOrthogonal()
    X = map_.right_inverse(group.sample((3, 3), dtype=dtype)).requires_grad_()
    assert torch.autograd.gradcheck(map_, X)
    assert torch.autograd.gradgradcheck(map_, X)


def test_moving_the_base_repairs_the_determinant():
    """The phases of many rounded factors add up, and polishing does not see them."""
    host = special("matrix_exp", unitary(3, 3))
    chain = host.parametrizations.weight
    chain[0].base *= torch.polar(torch.ones(()).double(), torch.tensor(1e-9).double())
    for repair, phase in ((False, 3e-9), (True, 0.0)):
        chain.rebase_(repair=repair)
        det = torch.linalg.det(host.weight.detach())
        assert abs(float(det.angle()) - phase) < 1e-14


def test_the_arguments_are_shown_and_saved():
    map_ = maps.Orthogonal("cayley", special=True)
    assert repr(map_) == "Orthogonal(orthogonal_map='cayley', special=True)"
    assert map_.spec() == {
        "map": "Orthogonal",
        "orthogonal_map": "cayley",
        "use_trivialization": True,
        "special": True,
    }
    assert map_.outside == "error"
    assert maps.Orthogonal().outside == "project"
    assert repr(maps.Orthogonal().codomain) == "Stiefel()"


def test_training_turns_a_rotation_into_the_one_that_is_wanted():
    target = torch.linalg.matrix_exp(
        torch.stack([torch.zeros(3, 3), skew_of(1.0, 0.5, -1.0)])
    )[1]
    host = special("cayley", torch.eye(3))
    optimizer = torch.optim.Adam(host.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (host.weight - target).square().sum().backward()
        optimizer.step()
    assert_close(host.weight.detach(), target, rtol=0, atol=1e-3)
    assert math.isclose(
        float(torch.linalg.det(host.weight.detach())), 1.0, abs_tol=1e-5
    )


def skew_of(a: float, b: float, c: float) -> Tensor:
    return torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]])
