"""For each law a map that breaks it: the negative controls of the laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast import Parametrization, maps, sets
from holdfast.linalg.precision import full_precision
from holdfast.testing.case import Case, Shape


class Map(Parametrization):
    """Base of the wrong maps: the identity."""

    def forward(self, X):
        return X

    def right_inverse(self, weight):
        return weight


class Leaning(Map):
    """Misses the skew matrices by a little."""

    def forward(self, X):
        return (X - X.mH) / 2 + 1e-4 * (X + X.mH) / 2


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
        identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        return torch.linalg.solve(identity - X, identity + X)

    def right_inverse(self, weight):
        identity = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        return torch.linalg.solve(weight + identity, identity - weight)


class HalfWay(sets.Constraint):
    """Projects half of the way."""

    def residual(self, weight):
        return sets.SkewMatrices().residual(weight)

    def project(self, weight):
        return (weight + sets.SkewMatrices().project(weight)) / 2

    def from_normal(self, normal):
        return sets.SkewMatrices().project(normal)

    def dim(self, shape, dtype=torch.float32):
        return sets.SkewMatrices().dim(shape, dtype)


class FixedSize(Map):
    """Knows one size."""

    def forward(self, X):
        return X.unflatten(-1, (2, 2)).flatten(-2)


class Cropped(Map):
    """Returns another shape for other sizes."""

    def forward(self, X):
        return X[..., :2]


class UnitRows(Map):
    """Divides by the norm of a row, whatever it is."""

    def forward(self, X):
        return X / torch.linalg.vector_norm(X, dim=-1, keepdim=True)


class Underflowing(Map):
    """Divides by a power that is zero for tiny entries."""

    @full_precision
    def forward(self, X):
        x = torch.where(X == 0, 1, X.clamp(-1, 1))
        return X * (x**4 / x**4)


class Spheres(sets.Constraint):
    """Rows of norm one."""

    def residual(self, weight):
        return (torch.linalg.vector_norm(weight, dim=-1) - 1).abs()

    def project(self, weight):
        return UnitRows()(weight)

    def from_normal(self, normal):
        return self.project(normal)

    def dim(self, shape, dtype=torch.float32):
        return torch.Size(shape).numel()


class Root(Map):
    """Has a finite value at zero, and no finite slope."""

    def forward(self, X):
        return X * (1 + (X**2).sum((-2, -1), keepdim=True).sqrt()) / 2

    def right_inverse(self, weight):
        raise NotImplementedError


class Overflowing(Map):
    """Has more values than the type."""

    def forward(self, X):
        return X.sinh()

    def right_inverse(self, weight):
        return weight.asinh()


class Mixing(Map):
    """Treats batches differently."""

    def forward(self, X):
        return X if X.ndim == 2 else 2 * X

    def right_inverse(self, weight):
        return weight if weight.ndim == 2 else weight / 2


class Single(Map):
    """Casts silently."""

    def forward(self, X):
        return X.float()


class Cancelling(Map):
    """Loses the digits that half types do not have."""

    def forward(self, X):
        return (X + 64) - 64 if X.dtype.itemsize == 2 else X


class Squared(Map):
    """Lets autocast have its way."""

    def forward(self, X):
        return X @ X.mT @ X

    def right_inverse(self, weight):
        raise NotImplementedError


class InPlace(torch.autograd.Function):
    """A product whose gradient writes over a tensor that autocast leaves as it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X):
        return X @ X

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, G):
        (X,) = ctx.saved_tensors
        return (G @ X.mT).addmm_(X.mT, G)


class Squaring(Map):
    """Differentiates by itself, and lets autocast have its way there."""

    @full_precision
    def forward(self, X):
        return InPlace.apply(X)

    def right_inverse(self, weight):
        raise NotImplementedError


class Detached(Map):
    """Leaves a factor out of the gradient."""

    def forward(self, X):
        return X * X.detach()

    def right_inverse(self, weight):
        raise NotImplementedError


class Kept(torch.autograd.Function):
    """A square whose gradient counts what it kept as a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X):
        return X * X

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.kept = 2 * inputs[0].detach()

    @staticmethod
    def backward(ctx, G):
        return G * ctx.kept


class OnceDifferentiable(Map):
    """Can be differentiated once."""

    def forward(self, X):
        return Kept.apply(X)

    def right_inverse(self, weight):
        raise NotImplementedError


class Numbers(Map):
    """Reads a number from a tensor."""

    def forward(self, X):
        return X * float(X.sum() > -1e30)

    def right_inverse(self, weight):
        raise NotImplementedError


class Doubled(Map):
    """Compiles to another value than it computes."""

    def forward(self, X):
        return X * (1 if torch.compiler.is_compiling() else 2)

    def right_inverse(self, weight):
        return weight / 2


class Drifting(Map):
    """Moves the value when it is registered."""

    def right_inverse(self, weight):
        return 1.001 * weight


class Noisy(Map):
    """Is another map each time."""

    def forward(self, X):
        return X + 1e-13 * torch.randn_like(X)


class SignsInTheOriginal(Map):
    """torch's: the signs are the integers on the diagonal."""

    codomain = sets.Stiefel()
    outside = "project"

    def forward(self, X):
        Q = maps.Householder()(X.tril(-1))
        return Q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    def right_inverse(self, weight):
        return maps.Householder().right_inverse(weight)


class Forgetful(Map):
    """Keeps what it needs where no state dict looks."""

    base: Tensor | None = None

    def forward(self, X):
        return X if self.base is None else X + self.base

    def right_inverse(self, weight):
        self.base = weight
        return torch.zeros_like(weight)


class Doubling(Map):
    """Stores another argument than it was given."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = 2 * factor


class Branching(Map):
    """Looks at values where there may be none."""

    def right_inverse(self, weight):
        return weight if float(weight.sum()) > 0 else weight.clone()


REAL, STIEFEL = sets.Real(), sets.Stiefel()


@dataclass(frozen=True)
class Wrong:
    """A wrong map: which law it breaks, and what is to be said about it.

    Attributes:
        law: the law that it is the negative control of.
        make: returns the chain.
        found: what the message says, as a regular expression.
        also: the other laws that it cannot but break with it.
        exempt: the laws that it may keep or break.
    """

    law: str
    make: Callable[[], list[Parametrization]]
    found: str
    shape: Shape = (4, 4)
    codomain: sets.Constraint = REAL
    dtype: torch.dtype = torch.float64
    also: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.law}: {type(self.make()[-1]).__name__}"

    def case(self) -> Case:
        return Case(
            "wrong", lambda _: self.make(), lambda _: self.codomain, (self.shape,)
        )


# One type for another is noticed wherever a map is registered.
_REGISTERED = ("compile", "registering", "optimizer", "copies", "spec", "meta")

WRONG = (
    Wrong(
        "image",
        lambda: [Leaning()],
        "a residual of 1.*e-04, where 1.0e-12 is allowed",
        codomain=sets.SkewMatrices(),
        also=("shapes", "optimizer"),
    ),
    Wrong(
        "right_inverse",
        lambda: [maps.Skew(), TutorialCayley()],
        "a relative error of",
        codomain=Rotations(),
        also=("registering", "half"),
        exempt=("huge",),  # whether I + 1e18 A is singular is up to rounding
    ),
    Wrong("projection", lambda: [maps.Skew()], "residual", codomain=HalfWay()),
    Wrong("shapes", lambda: [FixedSize()], r"RuntimeError: .* for a weight \(4, 1\)"),
    Wrong(
        "shapes",
        lambda: [Cropped()],
        r"a value of shape \(2, 2\), for a weight \(2, 5\)",
        shape=(5, 2),
    ),
    Wrong("degenerate", lambda: [UnitRows()], "a value .* zero", codomain=Spheres()),
    Wrong("degenerate", lambda: [Root()], "a gradient .* originals that are zeros"),
    Wrong("huge", lambda: [Overflowing()], "a value .* huge"),
    Wrong("tiny", lambda: [Underflowing()], "a value .* tiny", dtype=torch.float32),
    Wrong("batch", lambda: [Mixing()], "the batch is off by"),
    Wrong(
        "dtype",
        lambda: [Single()],
        "torch.float32 for torch.float64",
        also=(
            *("right_inverse", "half", "gradient", "second_derivative", "transforms"),
            *_REGISTERED,
        ),
    ),
    Wrong("half", lambda: [Cancelling()], "torch.bfloat16 is off by"),
    Wrong("autocast", lambda: [Squared()], "it is of dtype torch.bfloat16"),
    Wrong(
        "autocast_backward",
        lambda: [Squaring()],
        "dtype",
        also=("shapes", "transforms"),
    ),
    Wrong(
        "gradient",
        lambda: [Detached()],
        "^Jacobian mismatch for output 0 with respect to input 0$",
        also=("second_derivative",),
    ),
    Wrong(
        "second_derivative",
        lambda: [OnceDifferentiable()],
        "^Jacobian mismatch for output 0 with respect to input 0$",
        also=("transforms",),
    ),
    Wrong("transforms", lambda: [Numbers()], "vmap", also=("compile", "meta")),
    Wrong("compile", lambda: [Doubled()], "the compiled value is off by"),
    Wrong(
        "registering",
        lambda: [Drifting()],
        "a value moved by 1.0e-03",
        also=("right_inverse",),
    ),
    Wrong(
        "registering",
        lambda: [Noisy()],
        "the value that stays is off by",
        also=("transforms", "copies", "spec", "meta"),
    ),
    Wrong(
        "optimizer",
        lambda: [SignsInTheOriginal()],
        "a residual of 1.0",
        shape=(5, 3),
        codomain=STIEFEL,
        dtype=torch.float32,
        also=("image", "shapes"),
    ),
    Wrong(
        "copies",
        lambda: [Forgetful()],
        "after a loaded state dict it is off by",
        also=("registering", "spec", "meta"),
    ),
    Wrong("spec", lambda: [Doubling(3.0)], r"Doubling\(factor=12.0\) for Doubling"),
    Wrong("meta", lambda: [Branching()], "meta"),
)
