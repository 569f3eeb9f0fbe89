"""All of ten thousand random originals give stable matrices, with an exact way back.

No times but those of the right inverses, over the size n: no other library has them.
"""

from __future__ import annotations

import time

import torch

from holdfast import maps

from .reporting import OURS, Report, main, time_text
from .timing import Effort

COUNT, SIZE, BATCH = 10_000, 64, 250
SIZES = (32, 64, 128, 256)


def spectrum(map_: maps.Lyapunov | maps.Stein, W: torch.Tensor) -> float:
    """Return the largest real part, or the largest modulus."""
    values = torch.linalg.eigvals(W.double())
    return float(
        (values.real if isinstance(map_, maps.Lyapunov) else values.abs()).max()
    )


def missed(map_: maps.Lyapunov | maps.Stein, W: torch.Tensor) -> float:
    """Return the largest relative error of a right inverse."""
    error = torch.linalg.matrix_norm(map_(map_.right_inverse(W)) - W)
    return float((error / torch.linalg.matrix_norm(W)).max())


def inverting(map_: maps.Lyapunov | maps.Stein, n: int) -> float:
    """Return the seconds of a right inverse, the least of five."""
    W = map_.codomain.sample((n, n), dtype=torch.float64)
    times = []
    for _ in range(5):
        start = time.process_time()
        map_.right_inverse(W)
        times.append(time.process_time() - start)
    return min(times)


def measure(effort: Effort) -> Report:
    """Look at the spectra of stable matrices, and at their right inverses."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count, batch = (20, 10) if effort.quick else (COUNT, BATCH)
    claim = "Random originals give stable matrices, with an exact way back"
    setting = (
        f"{count} originals of {SIZE} x {SIZE} independent normal entries. The right "
        "inverse is that of one matrix in ten, in float64."
    )
    columns = [
        "map",
        "contestant",
        "type",
        "spectrum",
        "target",
        "right inverse misses",
    ]
    report = Report(claim, [*columns, "target"], setting)
    for map_, bound in ((maps.Lyapunov(), 0.0), (maps.Stein(), 1.0)):
        for dtype in (torch.float64, torch.float32):
            worst, error = -float("inf"), 0.0
            for _ in range(count // batch):
                W = map_(torch.randn(batch, SIZE, SIZE, dtype=dtype))
                worst = max(worst, spectrum(map_, W))
                if dtype is torch.float64:
                    error = max(error, missed(map_, W[: batch // 10]))
            name = f"{map_}, {dtype}"
            cells = [str(map_), OURS, str(dtype), f"{worst:.5f}"]
            cells += [report.judge(f"{name}: spectrum", worst, bound, ""), "", ""]
            if dtype is torch.float64:
                cells[-2:] = [f"{error:.1e}", report.judge(name, error, 1e-8, "")]
            report.rows.append(cells)
        seconds = [inverting(map_, n) for n in (SIZES[:2] if effort.quick else SIZES)]
        times = [
            f"n = {n}: {time_text(s)}" for n, s in zip(SIZES, seconds, strict=False)
        ]
        report.notes.append(f"Right inverse of {map_}: {', '.join(times)}.")
    return report


if __name__ == "__main__":
    main(measure)
