"""Tensors that no map was made for work, or are refused by name and left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import holdfast
from holdfast import errors, maps
from support import state_of, told
from test_coexistence import MAPS, SECOND, made


def filled(*shape: int, value: float = 1.0) -> torch.Tensor:
    return torch.full(shape, value)


UNFIT = {
    "integers": torch.arange(16).reshape(4, 4),
    "booleans": torch.eye(4, dtype=torch.bool),
    "a number": torch.tensor(0.5),
    "a vector": filled(3),
    "no entries": filled(0),
    "no rows": filled(0, 4),
    "no columns": filled(4, 0),
    "NaN": filled(4, 4, value=float("nan")),
    "infinity": filled(4, 4, value=float("inf")),
    "the smallest numbers": filled(4, 4, value=1e-42),
    "the largest numbers": filled(4, 4, value=1e38),
}


class Host(nn.Module):
    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", tensor.clone())


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("name", MAPS)
def test_A2_a_tensor_works_or_is_refused_by_name(name, kind):
    host, error = Host(UNFIT[kind]), None
    links = [SECOND[name]()] if name in SECOND else []
    for link in [*links, made(name, torch.ones(4, 4))]:
        before = state_of(host)
        try:
            holdfast.register_parametrization(host, "weight", link)
        except (errors.HoldfastError, ValueError) as refusal:
            error = refusal
            break
    if error is None:
        assert host.weight.shape == UNFIT[kind].shape
    else:
        assert "`Host.weight`" in told(error)
        assert state_of(host) == before


@pytest.mark.parametrize(
    ("kind", "kinds", "says"),
    [
        ("integers", errors.InvalidTensorError, "floating-point and complex tensors"),
        ("NaN", errors.NonFiniteError, "NaN or infinite entries"),
    ],
)
def test_A2_what_is_wrong_with_the_tensor_is_said(kind, kinds, says):
    with pytest.raises(kinds, match=says) as caught:
        holdfast.register_parametrization(Host(UNFIT[kind]), "weight", maps.Cholesky())
    assert caught.value.__cause__ is not None


def test_A2_an_error_of_another_kind_stays_what_it_is():
    class Failing(holdfast.Parametrization):
        def bind(self, weight):
            raise RuntimeError("mine")

    for tensor in (filled(4, 4), filled(2)):
        kind = RuntimeError if tensor.ndim == 2 else errors.InvalidTensorError
        with pytest.raises(kind, match="mine"):
            holdfast.register_parametrization(Host(tensor), "weight", Failing())


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder", "thin_cayley"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_A2_what_is_near_no_orthogonal_matrix_cannot_be_assigned(kind, bad):
    layer = holdfast.orthogonal(nn.Linear(4, 4), orthogonal_map=kind)
    before = state_of(layer)
    with pytest.raises(
        errors.NonFiniteError, match=r"`Linear.weight` cannot be assigned"
    ):
        layer.weight = filled(4, 4, value=bad)
    assert state_of(layer) == before
