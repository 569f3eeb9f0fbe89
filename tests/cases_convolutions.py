"""The rows of the table for kernels of convolutions."""

from __future__ import annotations

from holdfast import maps, sets
from holdfast.testing.case import MATRICES, Case, Shape

# Matrices are kernels without taps; (2, 3, 3) and (2, 2, 4) have one dimension of them.
KERNELS: tuple[Shape, ...] = (*MATRICES, (4, 2, 3, 3))

_ONE = {"batch": "a kernel is one operator, its first dimensions are channels"}
_BOUNDS = {
    "any size": {},
    "zeros": {"size": 5, "stride": 2},
    "circular": {"size": 6, "padding": "circular", "stride": 2, "dilation": 2},
}

CONVOLUTIONS = (
    *(
        Case(
            f"convolution {name}",
            lambda _, o=options: [maps.ConvSpectralBound(0.5, **o)],
            lambda _, o=options: sets.ConvolutionBall(0.5, **o),
            KERNELS,
            exceptions=_ONE,
        )
        for name, options in _BOUNDS.items()
    ),
    Case(
        "RKO",
        lambda _: [maps.RKO()],
        lambda _: sets.OrthogonalKernels(),
        KERNELS,
        exceptions=_ONE,
    ),
    Case(
        "RKO in groups",
        lambda _: [maps.RKO(groups=2, stride=2)],
        lambda _: sets.OrthogonalKernels(groups=2, stride=2),
        tuple(shape for shape in KERNELS if shape[0] % 2 == 0),
        exceptions=_ONE,
    ),
)
