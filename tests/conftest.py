"""The same numbers in every run: one thread, fixed seeds, a fixed set of examples."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import numpy as np
import pytest
import torch

from pretended import pretended_device

torch.set_num_threads(1)

# The first call of many torch operations is slow, which is no failure of the example.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    # pytest-randomly is here for the order alone, and may be absent (-p no:randomly).
    config.option.randomly_reset_seed = False


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


# Fixtures and the test's body draw from different streams: with one seed for both, the
# first matrix of a fixture would equal the first matrix of the body.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    seed(1)


def pytest_collection_finish() -> None:
    # What is loaded by now stays. A registration asks the collector who else has a
    # tensor, which takes as long as there are objects.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CUDA device, if only a pretended one where there is none."""
    if torch.cuda.is_available():
        yield
        return
    with pretended_device(monkeypatch):
        yield


@pytest.fixture
def no_waiting(device: None) -> Iterator[None]:
    """Turn every wait of the host into an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def mesh() -> Iterator[object]:
    """Yield a mesh of this process alone."""
    pytest.importorskip("torch.distributed.fsdp")
    pytest.importorskip("torch.distributed.device_mesh")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()
