"""What has to be measured in a way of its own on a processor and on a CUDA device."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

# Before a capture, so that what is made once is made.
_WARM = 3


def clock(device: str, threads: int = 1) -> Callable[[], float]:
    """Return the clock to time with.

    The processor time of one thread is what others do not disturb. Of several threads
    it is the sum, so there the wall time counts. A device is waited for.
    """
    if device == "cuda":
        return _idle_time
    return time.process_time if threads == 1 else time.perf_counter


def _idle_time() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def kept(layer: nn.Module) -> int:
    """Return the bytes of the parameters and buffers of a layer."""
    return sum(x.nbytes for x in (*layer.parameters(), *layer.buffers()))


def peak(layer: nn.Module, G: Tensor) -> int:
    """Return the most bytes that a read and its gradient hold at a time."""
    layer.weight.backward(G)  # what is made once is made
    layer.zero_grad()
    if G.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        layer.weight.backward(G)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        layer.weight.backward(G)
    events = [e for e in found.profiler.kineto_results.events() if "memory" in e.name()]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def waits(step: Callable[[], object]) -> int:
    """Return how often the host waits for the CUDA device in a step."""
    step()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchroniz" in str(warning.message) for warning in caught)


def captured(step: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """Return the CUDA graph of a step, or None if there is none.

    None is tried where the host waits: a capture that fails leaves the device's streams
    and memory in disorder.
    """
    if waits(step):
        return None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        return None
    return graph
