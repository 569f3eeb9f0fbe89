r"""Whether the operations on a tensor are being recorded, or rewritten.

Every private function of torch's that is used here in `linalg` stands in this file.

Note [Derivatives of derivatives]
    A custom function that torch differentiates forward runs its `jvp` with forward mode
    off, also that of the transforms around it: ``jacfwd(jacfwd(f))`` would be zero,
    without an error. There are two ways out. `closed_form` turns it on again, and has
    all derivatives from one rule; what a rule keeps is a fixed number of tensors, each
    with a meaning. The exponentials keep whatever factors their plan left, and sweep
    back over them once, which nothing differentiates again; under a transform or a
    tracer they are `traced`, and made of ordinary operations.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

# see Note [Kernels of weight norm] in `linalg/kernels.py`
weight_norm_interface = torch._weight_norm_interface  # pyright: ignore[reportPrivateImportUsage]
weight_norm_interface_backward = torch.ops.aten._weight_norm_interface_backward.default


def linear_pointwise(X: Tensor, W: Tensor, other: Tensor | None) -> Tensor:
    """Return X W^T by oneDNN, added to another matrix. See Note [Registers].

    The note is in `linalg/onednn.py`.

    Example:
        >>> import torch
        >>> linear_pointwise(torch.eye(2), torch.ones(2, 2), torch.eye(2))
        tensor([[2., 1.],
                [1., 2.]])
    """
    product = torch.ops.mkldnn._linear_pointwise
    if other is None:
        return product.default(X, W, None, "none", [], "")
    return product.binary(X, other, W, None, "add")


# `torch.jit.is_tracing`, without two calls in front of it: every read asks
_is_tracing = torch._C._is_tracing

Method = TypeVar("Method", bound=Callable[..., object])


def known_to_the_compiler(method: Method) -> Method:
    """Let the compiler run a method while it traces, and take the result as constant.

    For methods of modules that take no argument, return a string or a number, and
    depend on nothing but the classes, order and modes of modules, to which every graph
    is bound anyway. It is `torch.compiler.assume_constant_result`, without the import
    of the compiler.

    Example:
        >>> class Doubling(torch.nn.Module):
        ...     @known_to_the_compiler
        ...     def factor(self):
        ...         return 2.0 if self.training else 1.0
        >>> Doubling().factor()
        2.0
    """
    method._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return method


def recorded(X: Tensor) -> bool:
    """Tell whether operations are recorded, so that none may look at values.

    By compilers, exporters and dispatch modes; tensors without values and subclasses
    are taken for recorded as well.

    Example:
        >>> import torch
        >>> recorded(torch.zeros(2)), recorded(torch.zeros(2, device="meta"))
        (False, True)
    """
    return (
        torch.compiler.is_compiling()
        or _is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or X.is_meta
        or type(X) not in (Tensor, nn.Parameter)
    )


def exported_to_onnx() -> bool:
    """Tell whether a graph for ONNX is being recorded, which has few operations.

    Example:
        >>> exported_to_onnx()
        False
    """
    onnx = sys.modules.get("torch.onnx")  # it is slow to import
    return onnx is not None and onnx.is_in_onnx_export()


def captured(X: Tensor) -> bool:
    """Tell whether a CUDA graph is being captured, where nobody may wait.

    What is chosen then is chosen for every replay.

    Example:
        >>> import torch
        >>> captured(torch.zeros(2))
        False
    """
    return X.is_cuda and torch.cuda.is_current_stream_capturing()


def traced(X: Tensor) -> bool:
    """Tell whether nothing but ordinary operations will do.

    That is where they are `recorded`, and under the transforms of `torch.func`, for
    which see Note [Derivatives of derivatives].

    Example:
        >>> import torch
        >>> traced(torch.zeros(2)), traced(torch.zeros(2, device="meta"))
        (False, True)
    """
    return recorded(X) or transforming()


def transforming() -> bool:
    """Tell whether a transform of `torch.func` is at work.

    Example:
        >>> import torch
        >>> torch.func.vmap(lambda x: x if transforming() else -x)(torch.ones(2))
        tensor([1., 1.])
    """
    return torch._C._are_functorch_transforms_active()


def dual() -> bool:
    """Tell whether forward derivatives are being taken.

    Example:
        >>> from torch.autograd import forward_ad
        >>> with forward_ad.dual_level():
        ...     print(dual())
        True
    """
    return forward_ad._current_level >= 0


def forward_mode() -> AbstractContextManager[object]:
    """Return a context in which forward derivatives are taken.

    See Note [Derivatives of derivatives].

    Example:
        >>> from torch.autograd import forward_ad
        >>> with forward_ad.dual_level(), forward_mode():
        ...     x = forward_ad.make_dual(torch.ones(1), torch.ones(1))
        ...     print(forward_ad.unpack_dual(x * x).tangent)
        tensor([2.])
    """
    return forward_ad._set_fwd_grad_enabled(True)
