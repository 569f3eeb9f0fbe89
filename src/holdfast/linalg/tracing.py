"""Whether the operations on a tensor are being recorded, or rewritten."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def traced(X: Tensor) -> bool:
    """Tell whether only ordinary operations will do, which do not look at values.

    They are all that compilers, exporters and dispatch modes can record, and that
    tensors without values and subclasses know. Under the transforms of `torch.func` a
    custom function would do, but its forward derivative counts as a constant for
    another one around it: ``jacfwd(jacfwd(f))`` would be zero, without an error.

    Example:
        >>> import torch
        >>> traced(torch.zeros(2)), traced(torch.zeros(2, device="meta"))
        (False, True)
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or X.is_meta
        or type(X) not in (Tensor, nn.Parameter)
    )
