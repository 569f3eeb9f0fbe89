"""Registering a map on the weight of a module, and being refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import holdfast
from holdfast import Parametrization
from holdfast.testing.case import Host
from support import state_of, told


def registered(weight: Tensor, *links: Parametrization) -> Host:
    host = Host(weight)
    for link in links:
        holdfast.register_parametrization(host, "weight", link)
    return host


def refused(weight: Tensor, link: Parametrization, kind: type) -> str:
    """Return what is said, and see that nothing has changed."""
    host = Host(weight)
    before = state_of(host)
    with pytest.raises(kind) as caught:
        holdfast.register_parametrization(host, "weight", link)
    assert state_of(host) == before
    assert "Host.weight" in told(caught.value)
    return told(caught.value)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)
