r"""
Weights with a property: the whole tutorial
===========================================

Some networks need a weight of a special kind: an orthogonal recurrent kernel, which
carries a signal over hundreds of steps, a positive definite metric, a kernel of norm
one. A parametrization builds the property in. The optimizer moves a free tensor, the
layer sees what a map makes of it, and every step lands in the set again.

This page takes every step of PyTorch's own tutorial on parametrizations, in its order,
with holdfast: write a map, register it, look at what became of the layer, cache, chain,
assign, prune, remove. It goes on to several free tensors behind one weight, the maps
that come ready-made and a little training, and ends with what that tutorial gets
wrong. Whatever is printed here comes from the run, and an ``assert`` beside it checks
the claim.
"""

import argparse
import copy
import math
import sys
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
import holdfast as parametrize  # all that code written for torch has to change
from holdfast import maps, plot, sets

_ = torch.manual_seed(0)
torch.set_printoptions(precision=3, sci_mode=False)
plt.rc("figure.constrained_layout", use=True, w_pad=0.08, h_pad=0.08)

# sphinx_gallery_start_ignore
# Run as a script, this page saves its pictures instead of leaving them open.
AS_SCRIPT = "__file__" in globals() and "sphinx_gallery" not in sys.modules
if AS_SCRIPT:
    parser = argparse.ArgumentParser(description="Run the tutorial, save its pictures.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("holdfast-tutorial"),
        help="where the pictures go (%(default)s)",
    )
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make the folder {folder}: {error.strerror}")


# sphinx_gallery_end_ignore
def heat_map(ax, matrix, title, limit):
    """Draw a matrix in colors from -limit to limit, a small one with its figures."""
    rows = matrix.tolist()
    image = ax.imshow(rows, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=title, xticks=[], yticks=[])
    if len(rows) <= 5:
        for i, j in product(range(len(rows)), range(len(rows[0]))):
            color = "white" if abs(rows[i][j]) > 0.6 * limit else "black"
            shown = f"{round(rows[i][j], 2) + 0.0:.2f}".replace("-", "−")  # no −0.00
            ax.text(j, i, shown, ha="center", va="center", color=color)
    return image


def largest(*tensors):
    """Return the largest absolute entry: the limit of a shared color scale."""
    return max(tensor.abs().max().item() for tensor in tensors)


def check_distance(what, A, B, at_most=1e-5):
    """Print the distance of two matrices and check it."""
    distance = torch.dist(A, B).item()
    print(f"{what}: {distance:.1e}")
    assert distance <= at_most


def refusal(call, *arguments, **options):
    """Return what a call says that has to be refused."""
    try:
        call(*arguments, **options)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was accepted")


# %%
# By hand
# -------
#
# The upper triangle determines a symmetric matrix. Reflect it, and any square matrix
# becomes a symmetric one.


def reflect(X):
    return X.triu() + X.triu(1).mT


W = reflect(torch.randn(3, 3))
print(W)
assert torch.equal(W, W.mT)

# %%
# A layer can do that to its weight in ``forward``:


class ReflectedLinear(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return nn.functional.linear(x, reflect(self.weight), self.bias)


out = ReflectedLinear(3)(torch.randn(8, 3))
print(out.shape)
assert out.shape == (8, 3)

# %%
# It works, and does not scale: the next kind of layer has to be written anew, the rule
# is buried in the layer that happens to use it, and a recurrent network that multiplies
# by the weight at every time step reflects it at every time step.
#
# As a map of its own
# -------------------
#
# A parametrization is a module whose ``forward`` takes the free tensor and returns the
# weight. Nothing else is asked of it.


class Symmetric(nn.Module):
    def forward(self, X):
        return reflect(X)


# %%
# One call puts it on a weight of a layer that exists already. Names and signatures are
# those of ``torch.nn.utils.parametrize``: code written for it needs the import above,
# and no other change. From here on the page says ``holdfast``.

layer = nn.Linear(3, 3)
print("before:", layer)
before = layer.weight.detach().clone()
assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
print("after:", layer)

assert repr(layer).splitlines() == [
    "ParametrizedLinear(",
    "  in_features=3, out_features=3, bias=True",
    "  (parametrizations): ModuleDict(",
    "    (weight): ParametrizationList(",
    "      (0): Symmetric()",
    "    )",
    "  )",
    ")",
]

# %%
# The layer is a linear layer still, and its weight is symmetric:

print(layer.weight)
assert isinstance(layer, nn.Linear)
assert torch.equal(layer.weight, layer.weight.mT)
x = torch.randn(8, 3)
assert_close(layer(x), x @ layer.weight.mT + layer.bias)

# %%

limit = largest(before)
figure, axes = plt.subplots(1, 2, num="symmetric", figsize=(6.4, 3))
heat_map(axes[0], before, "before: any matrix", limit)
image = heat_map(axes[1], layer.weight, "after: symmetric", limit)
bar = figure.colorbar(image, ax=axes, label="entry of the weight")

# %%
# What has changed
# ----------------
#
# ``layer.weight`` is computed whenever it is read. What it is computed from, and how,
# sits in ``layer.parametrizations``, a dictionary with one list of maps per tensor.

print(layer.parametrizations)
print(layer.parametrizations.weight[0])
assert isinstance(layer.parametrizations, nn.ModuleDict)
assert isinstance(layer.parametrizations.weight, holdfast.ParametrizationList)
assert type(layer).__name__ == "ParametrizedLinear"
assert holdfast.is_parametrized(layer, "weight")
assert not holdfast.is_parametrized(layer, "bias")
assert holdfast.type_before_parametrizations(layer) is nn.Linear

# %%
# What the optimizer moves is the parameter ``parametrizations.weight.original`` now:

for name, parameter in layer.named_parameters():
    print(f"{name:<32} {tuple(parameter.shape)}")
assert {name for name, _ in layer.named_parameters()} == {
    "bias",
    "parametrizations.weight.original",
}

# %%
# Its lower triangle has no effect, and the map makes of it what the layer sees:

original = layer.parametrizations.weight.original
print(original)
check_distance("distance from the weight", reflect(original), layer.weight, at_most=0)
assert isinstance(original, nn.Parameter)

# %%
# Any layer, any tensor
# ---------------------
#
# A map that works on the last two dimensions serves a convolution, kernel by kernel.
# Here all of them become skew-symmetric: equal to minus their transpose.


class Skew(nn.Module):
    def forward(self, X):
        return X.triu(1) - X.triu(1).mT


cnn = nn.Conv2d(2, 3, kernel_size=3)
kernels_before = cnn.weight.detach().clone()
holdfast.register_parametrization(cnn, "weight", Skew())
print(cnn.weight[0, 1])
print(cnn.weight[2, 0])
assert torch.equal(cnn.weight, -cnn.weight.mT)
assert cnn(torch.randn(1, 2, 8, 8)).shape == (1, 3, 6, 6)

# %%

limit = largest(kernels_before)
figure, axes = plt.subplots(2, 3, num="convolution", figsize=(7.4, 4.6))
for j, (top, bottom) in enumerate(axes.T):
    heat_map(top, kernels_before[j, 0], f"to channel {j}", limit)
    image = heat_map(bottom, cnn.weight[j, 0], None, limit)
axes[0, 0].set_ylabel("before")
axes[1, 0].set_ylabel("after: skew-symmetric")
figure.suptitle("Kernels from channel 0")
bar = figure.colorbar(image, ax=axes, label="entry of the kernel")

# %%
# Buffers too: they stay buffers, with no gradient and no place among the parameters.

mixer = nn.Module()
mixer.register_buffer("mix", torch.randn(3, 3))
holdfast.register_parametrization(mixer, "mix", Skew())
print(list(mixer.state_dict()), list(mixer.parameters()))
assert list(mixer.state_dict()) == ["parametrizations.mix.original"]
assert list(mixer.parameters()) == []
assert torch.equal(mixer.mix, -mixer.mix.mT)

# %%
# Maps are submodules
# -------------------
#
# A map may have parameters and buffers of its own. It is part of the layer, so they
# are trained, moved, converted and saved with it. This one keeps all entries in an
# interval whose width is learned:


class Bounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("center", torch.tensor(0.1))

    def forward(self, X):
        return self.center + self.width * X.tanh()


bounded = Bounded()
layer = holdfast.register_parametrization(nn.Linear(3, 3), "weight", bounded)
print(list(layer.state_dict()))
assert "parametrizations.weight.0.width" in layer.state_dict()
assert "parametrizations.weight.0.center" in layer.state_dict()
layer.double().eval()
print("width:", bounded.width.dtype, " weight:", layer.weight.dtype)
assert bounded.width.dtype == bounded.center.dtype == torch.float64
assert layer.weight.dtype == torch.float64
assert not bounded.training
layer.weight.sum().backward()
assert bounded.width.grad is not None
visited = []
layer.apply(visited.append)
assert bounded in visited

# %%
# Computed once
# -------------
#
# Three reads are three evaluations. Inside ``with cached():`` they are one, which is
# what a recurrent network wants around its loop over time. A map that speaks shows it:


class Speaking(nn.Module):
    def __init__(self):
        super().__init__()
        self.times = 0

    def forward(self, X):
        self.times += 1
        print("  evaluated")
        return X


speaking = Speaking()
print("while registering, to check what the map returns:")
layer = holdfast.register_parametrization(nn.Linear(4, 4), "weight", speaking)

speaking.times = 0
print("three reads outside a scope:")
total = layer.weight.sum() + layer.weight.T.sum() + layer.weight.norm()
assert speaking.times == 3

speaking.times = 0
print("three reads inside a scope:")
with holdfast.cached():
    total = layer.weight.sum() + layer.weight.T.sum() + layer.weight.norm()
assert speaking.times == 1

# %%
# A cached value is used as long as it is right. When the optimizer has moved the
# original, the next read is evaluated again, in the same scope:

optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
speaking.times = 0
with holdfast.cached():
    print("a training step between two reads:")
    layer.weight.square().sum().backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert_close(layer.weight, 0.8 * before)
assert speaking.times == 2

# %%
# Chains
# ------
#
# Registered on the same tensor, a second map takes what the first one returns. The
# Cayley transform sends skew-symmetric matrices to rotations,
#
# .. math:: Q = (I - A)^{-1} (I + A),
#
# so after ``Skew`` it makes an orthogonal weight out of any matrix.


class CayleyTransform(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.register_buffer("identity", torch.eye(size))

    def forward(self, A):
        return torch.linalg.solve(self.identity - A, self.identity + A)


def with_chain(module, *links):
    """Register maps on the weight, one after the other."""
    for link in links:
        holdfast.register_parametrization(module, "weight", link)
    return module


layer = with_chain(nn.Linear(3, 3), Skew(), CayleyTransform(3))
Q = layer.weight
check_distance("distance of QᵀQ from I", Q.mT @ Q, torch.eye(3))
assert [type(link).__name__ for link in layer.parametrizations.weight] == [
    "Skew",
    "CayleyTransform",
]

# %%
# The maps of a chain combine freely. After ``Skew`` the matrix exponential makes
# rotations as well; after ``Symmetric`` it makes positive definite matrices.


class Exponential(nn.Module):
    def forward(self, X):
        return torch.matrix_exp(X)


Q = with_chain(nn.Linear(3, 3), Skew(), Exponential()).weight
check_distance("distance of QᵀQ from I", Q.mT @ Q, torch.eye(3))

P = with_chain(nn.Linear(3, 3), Symmetric(), Exponential()).weight
check_distance("distance of P from Pᵀ", P, P.mT)
print("eigenvalues of P:", torch.linalg.eigvalsh(P).detach())
assert (torch.linalg.eigvalsh(P) > 0).all()

# %%
# ``holdfast.maps`` has all of these, for matrices of any size and batches of them. They
# are modules and take plain tensors too. Each set leaves its mark on the spectrum: a
# skew-symmetric matrix has its eigenvalues on the imaginary axis, an orthogonal one on
# the unit circle, a positive definite one on the positive half of the real axis.

chains = {
    "no map": nn.Sequential(),
    "Skew": nn.Sequential(maps.Skew()),
    "Skew, Cayley": nn.Sequential(maps.Skew(), maps.Cayley()),
    "Symmetric, MatrixExp": nn.Sequential(maps.Symmetric(), maps.MatrixExp()),
}
X = torch.randn(8, 8) / 4
weights = {label: chain(X) for label, chain in chains.items()}
spectra = {label: torch.linalg.eigvals(W) for label, W in weights.items()}

for label, spectrum in spectra.items():
    print(
        f"{label:<21} |λ| from {spectrum.abs().min():.3f} to {spectrum.abs().max():.3f}"
    )
assert_close(spectra["Skew"].real, torch.zeros(8), atol=1e-5, rtol=0)
assert_close(spectra["Skew, Cayley"].abs(), torch.ones(8))
assert (spectra["Symmetric, MatrixExp"].real > 0).all()
assert_close(spectra["Symmetric, MatrixExp"].imag, torch.zeros(8))

# %%

limit = largest(*weights.values())
reach = math.ceil(max(spectrum.real.max().item() for spectrum in spectra.values()))
figure, axes = plt.subplots(2, 4, num="chains", figsize=(11, 4.9), height_ratios=(5, 3))
for (top, bottom), label in zip(axes.T, chains, strict=True):
    image = heat_map(top, weights[label], label, limit)
    bottom.add_patch(plt.Circle((0, 0), 1, fill=False, ls=":", color="#767676"))
    real, imaginary = torch.view_as_real(spectra[label]).T.tolist()
    bottom.scatter(real, imaginary, c="#0072b2", s=24, zorder=2)
    bottom.set(xlim=(-1.5, reach), ylim=(-1.5, 1.5), aspect="equal")
    bottom.set(xlabel="real part", xticks=range(-1, reach + 1), yticks=(-1, 0, 1))
    bottom.grid(alpha=0.3)
    bottom.label_outer()
axes[1, 0].set_ylabel("imaginary part\n(dotted: the unit circle)")
figure.suptitle("One free tensor through four chains: the matrix and its eigenvalues")
bar = figure.colorbar(image, ax=axes[0], label="entry of the weight")

# %%
# Assigning
# ---------
#
# Going back, from a weight to the free tensor, takes a method ``right_inverse``. For a
# skew-symmetric matrix that is its upper triangle, as no other entry is ever used.


class AssignableSkew(Skew):
    def right_inverse(self, A):
        return A.triu(1)


layer = with_chain(nn.Linear(3, 3), AssignableSkew())
A = torch.randn(3, 3)
A = A - A.mT
layer.weight = A
check_distance("distance from what was assigned", layer.weight, A, at_most=0)

# %%
# Through a chain the right inverses run in reverse order. Solving the formula of the
# Cayley transform for A gives :math:`A = (Q + I)^{-1} (Q - I)`:


class AssignableCayley(CayleyTransform):
    def right_inverse(self, Q):
        return torch.linalg.solve(Q + self.identity, Q - self.identity)


layer = with_chain(nn.Linear(3, 3), AssignableSkew(), AssignableCayley(3))
Q = torch.matrix_exp(A / 3)  # a rotation
layer.weight = Q
check_distance("distance from what was assigned", layer.weight, Q)

# %%
# The maps of holdfast also know what they can reach. A matrix outside of that is
# refused, with what is wrong and what to do; the layer stays as it was. With
# ``outside="project"`` it is moved to the nearest one instead.

layer = with_chain(nn.Linear(3, 3), maps.Skew())
old = layer.weight
print(refusal(setattr, layer, "weight", torch.ones(3, 3)))
assert torch.equal(layer.weight, old)

layer = nn.Linear(3, 3)
holdfast.register_parametrization(layer, "weight", maps.Skew(), outside="project")
M = torch.randn(3, 3)
layer.weight = M
assert_close(layer.weight, (M - M.mT) / 2)

# %%
# Pruning
# -------
#
# A right inverse may be inexact. A mask cannot give back what it has pruned, so what is
# assigned is pruned.


class Pruned(nn.Module):
    def __init__(self, weight, share=0.3):
        super().__init__()
        self.register_buffer("keep", torch.rand_like(weight) >= share)

    def forward(self, X):
        return torch.where(self.keep, X, 0)

    def right_inverse(self, W):
        return W


layer = nn.Linear(5, 4)
pruned = Pruned(layer.weight)
with_chain(layer, pruned)
assigned = torch.rand(4, 5) - 0.5
layer.weight = assigned
print("assigned:", assigned, "weight:", layer.weight, sep="\n")
assert torch.equal(layer.weight == 0, ~pruned.keep)
assert torch.equal(layer.weight[pruned.keep], assigned[pruned.keep])
assert 0 < pruned.keep.sum() < 20

# %%

figure, axes = plt.subplots(1, 2, num="pruning", figsize=(7.6, 3))
heat_map(axes[0], assigned, "assigned", largest(assigned))
image = heat_map(axes[1], layer.weight, "the weight: pruned", largest(assigned))
bar = figure.colorbar(image, ax=axes, label="entry of the weight")

# %%
# ``maps.Mask(keep)`` is this map, with the set that it lands in.
#
# Removing
# --------
#
# Removal makes the weight a plain parameter again. It keeps the value that the layer
# has used, now free to leave the set:

layer = nn.Linear(3, 3)
parameter = layer.weight
with_chain(layer, maps.Skew())
W = layer.weight.detach()
holdfast.remove_parametrizations(layer, "weight")
print(layer)
print(layer.weight)
assert repr(layer) == "Linear(in_features=3, out_features=3, bias=True)"
assert type(layer) is nn.Linear
assert layer.weight is parameter  # an optimizer that holds it goes on
assert torch.equal(layer.weight, W)

# %%
# Or the original, with ``leave_parametrized=False``. The lower triangle, unused all the
# while, is back:

layer = nn.Linear(3, 3)
before = layer.weight.detach().clone()
with_chain(layer, Skew())
holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)
print(layer.weight)
assert type(layer) is nn.Linear
assert torch.equal(layer.weight, before)

# %%
# Several free tensors
# --------------------
#
# If ``right_inverse`` returns several tensors, ``forward`` takes as many. The outer
# product of two vectors has rank one. Back from a matrix they are its first singular
# vectors, so that any matrix becomes the nearest one of rank one.


class RankOne(nn.Module):
    def forward(self, u, v):
        return torch.outer(u, v)

    def right_inverse(self, W):
        U, S, Vh = torch.linalg.svd(W)
        return U[:, 0] * S[0].sqrt(), Vh[0] * S[0].sqrt()


layer = with_chain(nn.Linear(4, 5), RankOne())
for name, parameter in layer.named_parameters():
    print(f"{name:<33} {tuple(parameter.shape)}")
print("singular values:", torch.linalg.svdvals(layer.weight.detach()))
assert layer.parametrizations.weight.original0.shape == (5,)
assert layer.parametrizations.weight.original1.shape == (4,)
assert torch.linalg.matrix_rank(layer.weight) == 1

W = torch.outer(torch.randn(5), torch.randn(4))
layer.weight = W
check_distance("distance from what was assigned", layer.weight, W)

# %%
# Removal leaves the value; no single original could take the place of the weight.

remove = holdfast.remove_parametrizations
print(refusal(remove, layer, "weight", leave_parametrized=False))
assert holdfast.is_parametrized(layer, "weight")
remove(layer, "weight")
assert_close(layer.weight, W)

# %%
# An optimizer that was made before registering holds the old parameter. It has to be
# told that there are others now:

optimizer = torch.optim.SGD(layer.parameters())
with_chain(layer, RankOne())
assert holdfast.swap_parameters(optimizer) == 1
held = optimizer.param_groups[0]["params"]
print("parameters of the layer, held by the optimizer:", len(held))
assert {id(tensor) for tensor in held} == {id(tensor) for tensor in layer.parameters()}

# %%
# Unsafe
# ------
#
# A map has to keep shape and dtype, for the layer counts on them. Where a change is
# meant, as for a weight that is stored in bfloat16 and used in float32, ``unsafe=True``
# switches off this check and no other.


class Upcast(nn.Module):
    def forward(self, X):
        return X.float()

    def right_inverse(self, W):
        return W.bfloat16()


layer = nn.Linear(3, 3, bias=False, dtype=torch.bfloat16)
register = holdfast.register_parametrization
print(refusal(register, layer, "weight", Upcast()))
print(refusal(register, layer, "wieght", Upcast(), unsafe=True))
assert type(layer) is nn.Linear

register(layer, "weight", Upcast(), unsafe=True)
print("stored:", layer.parametrizations.weight.original.dtype)
print("used:  ", layer.weight.dtype)
assert layer.parametrizations.weight.original.dtype == torch.bfloat16
assert layer(torch.randn(8, 3)).dtype == torch.float32

# %%
# Three that come ready-made
# --------------------------
#
# ``orthogonal``, ``weight_norm`` and ``spectral_norm`` register a map in one call, on
# any layer: a linear one, a convolution (``orthogonal`` takes its kernels one by one),
# the recurrent kernel of a network over time, the input projection of an attention.
# The table shows how far from orthonormal the columns (or rows) are after the first;
# how far the second has moved the value, which is not at all, as it only splits length
# from direction; and the largest singular value after the third.

hosts = {
    "Linear(6, 4)": (nn.Linear(6, 4), "weight", [(5, 6)]),
    "Conv2d(3, 8, 3)": (nn.Conv2d(3, 8, 3), "weight", [(2, 3, 5, 5)]),
    "RNN(4, 6)": (nn.RNN(4, 6), "weight_hh_l0", [(7, 2, 4)]),
    "MultiheadAttention(6, 2)": (
        nn.MultiheadAttention(6, 2),
        "in_proj_weight",
        [(7, 2, 6)] * 3,
    ),
}


def run(module, shapes):
    """Run a module on random inputs; return its (first) output."""
    out = module(*[torch.randn(shape) for shape in shapes])
    return out[0] if isinstance(out, tuple) else out


print(f"{'':<26}{'orthogonal':>18}{'weight_norm':>14}{'spectral_norm':>16}")
print(f"{'':<26}{'‖QᵀQ − I‖ / √k':>18}{'value moved':>14}{'largest σ':>16}")
for label, (module, name, shapes) in hosts.items():
    orthogonal = holdfast.orthogonal(copy.deepcopy(module), name)
    residual = sets.Stiefel().residual(getattr(orthogonal, name)).max().item()
    assert residual < 1e-5

    normed = holdfast.weight_norm(copy.deepcopy(module), name)
    lengths = getattr(normed, name).flatten(1).norm(dim=1)
    assert_close(lengths, normed.parametrizations[name].original0.flatten())
    moved = torch.dist(getattr(normed, name), getattr(module, name)).item()
    assert moved < 1e-5

    spectral = holdfast.spectral_norm(copy.deepcopy(module), name)
    for _ in range(50):  # each training forward refines the estimate of the norm
        run(spectral, shapes)
    sigma = torch.linalg.matrix_norm(getattr(spectral, name).flatten(1), 2).item()
    assert abs(sigma - 1) < 1e-3
    print(f"{label:<26}{residual:>18.1e}{moved:>14.1e}{sigma:>16.4f}")

    for parametrized in (orthogonal, normed, spectral):
        run(parametrized, shapes).sum().backward()
        free = parametrized.parametrizations[name].parameters()
        assert all(tensor.grad is not None for tensor in free)

# %%
# Training in the set
# -------------------
#
# Two layers start at the same orthogonal weight and learn the same random linear map.
# The plain one goes where the loss pulls it. The other one can only turn: after every
# step its eigenvalues are on the unit circle. Its determinant is −1 and stays so, which
# holds one of them at 1 and one at −1.

target = torch.randn(10, 10) / math.sqrt(10)
start = sets.Stiefel().sample((10, 10))
start[0] *= -start.det().sign()
chains = {"plain": [], "Skew, Cayley": [maps.Skew(), maps.Cayley()]}
history = {}
for label, chain in chains.items():
    layer = with_chain(nn.Linear(10, 10, bias=False), *chain)
    layer.weight = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    history[label] = [torch.linalg.eigvals(layer.weight.detach())]
    for _ in range(40):
        loss = (layer.weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history[label].append(torch.linalg.eigvals(layer.weight.detach()))
    off = max(largest(spectrum.abs() - 1) for spectrum in history[label])
    print(f"{label:<13} largest distance from the unit circle: {off:.1e}")
    assert (off < 1e-5) == bool(chain)
assert_close(layer.weight.det(), torch.tensor(-1.0))

# %%

figure, axes = plt.subplots(
    1, 2, num="training", figsize=(9, 4.8), sharex=True, sharey=True
)
for ax, label in zip(axes, chains, strict=True):
    plot.eigenvalues(ax, [spectrum.tolist() for spectrum in history[label]])
    ax.set_title(label)
figure.suptitle("Eigenvalues of the weight over 40 steps of Adam")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
bar = figure.colorbar(axes[0].collections[-1], ax=axes, label="step")

# %%
# What the original gets wrong
# ----------------------------
#
# PyTorch's tutorial assigns a rotation to a layer with ``Skew`` and a Cayley transform.
# Its page shows the distance 2.5458 where 0 was meant. This is its right inverse:


class PrintedCayley(CayleyTransform):
    def right_inverse(self, Q):
        return torch.linalg.solve(Q + self.identity, self.identity - Q)


# %%
# The difference is taken the wrong way around, and the result is −A. The transform of
# −A is the transpose of that of A: the layer turns backwards. In three dimensions a
# rotation by the angle θ is :math:`2 \sqrt 2\, |\sin θ|` away from its transpose, so
# that 2.5458 tells how far the rotation of that page turned:

theta = math.asin(2.5458 / math.sqrt(8))
print(f"θ = {math.degrees(theta):.1f}° (or {180 - math.degrees(theta):.1f}°)")

axis = nn.functional.normalize(torch.tensor([1.0, 2.0, 3.0]), dim=0)
turn = torch.linalg.cross(axis.expand(3, 3), torch.eye(3))  # skew-symmetric, of norm √2


def rotation(angle):
    """Return the rotation by an angle around the axis."""
    return torch.matrix_exp(angle * turn.double()).float()


Q = rotation(theta)
printed = with_chain(nn.Linear(3, 3), AssignableSkew(), PrintedCayley(3))
printed.weight = Q
ours = with_chain(nn.Linear(3, 3), maps.Skew(), maps.Cayley())
ours.weight = Q
print(f"as printed:     {torch.dist(printed.weight, Q):.4f}")
print(f"from Qᵀ:        {torch.dist(printed.weight, Q.mT):.4f}")
print(f"with holdfast:  {torch.dist(ours.weight, Q):.4f}")
assert abs(torch.dist(printed.weight, Q) - 2.5458) < 1e-4
assert torch.dist(printed.weight, Q.mT) < 1e-5
assert torch.dist(ours.weight, Q) < 1e-5

# %%

figure, axes = plt.subplots(1, 3, num="cayley-sign", figsize=(9, 3.1))
wrong, right = torch.dist(printed.weight, Q), torch.dist(ours.weight, Q)
heat_map(axes[0], Q, "assigned", 1)
heat_map(axes[1], printed.weight, f"as printed: distance {wrong:.4f}", 1)
image = heat_map(axes[2], ours.weight, f"holdfast: distance {right:.4f}", 1)
bar = figure.colorbar(image, ax=axes, label="entry of the weight")

# %%
# With the sign put right, as in ``AssignableCayley`` above, a second fault remains. No
# skew-symmetric A gives a matrix with the eigenvalue −1: its own are imaginary, and
# :math:`(1 + ia) / (1 - ia)` is −1 for no finite a. For a Q that has it,
# :math:`Q + I` is singular. All orthogonal matrices of determinant −1 are of this kind,
# and all rotations by 180°; close to these the coordinates grow without bound, and
# digits are lost.
#
# ``maps.Cayley`` is the transform times a diagonal matrix of signs, D. An assignment
# chooses them such that QD stays clear of the eigenvalue −1. They are a buffer, which
# training does not touch. ``maps.MatrixExp`` has them too.

ways = {
    "as printed": lambda n: (AssignableSkew(), PrintedCayley(n)),
    "sign put right": lambda n: (AssignableSkew(), AssignableCayley(n)),
    "maps.Cayley": lambda n: (maps.Skew(), maps.Cayley()),
    "maps.MatrixExp": lambda n: (maps.Skew(), maps.MatrixExp()),
}
reflection = torch.eye(3) - 2 * torch.outer(axis, axis)
matrices = {
    "rotation": Q,
    "rotation by 180°": torch.diag(torch.tensor([-1.0, -1.0, 1.0])),
    "reflection": reflection,
    "permutation": torch.eye(4)[[1, 0, 3, 2]],
    "−I of size 3": -torch.eye(3),
    "−I of size 4": -torch.eye(4),
}


def distance_after_assigning(way, Q):
    """Return how far the weight is from what was assigned, NaN if that raises."""
    layer = with_chain(nn.Linear(*Q.shape), *ways[way](len(Q)))
    try:
        layer.weight = Q
    except torch.linalg.LinAlgError:
        return math.nan
    return torch.dist(layer.weight, Q).item()


print(f"{'':<17}{'det':>4}", *[f"{way:>15}" for way in ways])
for label, Q in matrices.items():
    row = [distance_after_assigning(way, Q) for way in ways]
    cells = ["singular" if math.isnan(cell) else f"{cell:.1e}" for cell in row]
    print(f"{label:<17}{Q.det():>4.0f}", *[f"{cell:>15}" for cell in cells])
    assert not row[0] < 0.1
    assert (row[1] < 1e-5) == (label == "rotation")
    assert max(row[2:]) < 1e-5

# %%
# The same with the line ``layer.weight = nn.init.orthogonal_(layer.weight)``, by which
# that tutorial means to start its layer. With the sign as printed it is hardly ever
# right. With the sign put right it is so for determinant 1, half of the draws. The
# other half is wrong and mostly silent, as rounding hides the singular system.


def initialize(way, times=50):
    """Draw and assign; count weights that are right to 0.01, wrong, or raise."""
    counts = {"det 1": 0, "right": 0, "wrong": 0, "raises": 0}
    for _ in range(times):
        layer = with_chain(nn.Linear(3, 3), *ways[way](3))
        drawn = nn.init.orthogonal_(layer.weight)
        counts["det 1"] += int(drawn.det() > 0)
        try:
            layer.weight = drawn
            right = torch.dist(layer.weight, drawn) < 0.01
            counts["right" if right else "wrong"] += 1
        except torch.linalg.LinAlgError:
            counts["raises"] += 1
    return counts


counts = {way: initialize(way) for way in ways}
for way, count in counts.items():
    print(f"{way:<15}", count)
assert counts["as printed"]["right"] < 5
assert counts["sign put right"]["right"] == counts["sign put right"]["det 1"] < 40
assert counts["maps.Cayley"]["right"] == counts["maps.MatrixExp"]["right"] == 50

# %%
# All of it in one picture: rotations by every angle, on a logarithmic axis that ends
# just short of 180°, and how far the weight is from what was assigned.

gaps = torch.logspace(math.log10(179), -3, 40).tolist()
distances = {
    way: [distance_after_assigning(way, rotation(math.radians(180 - g))) for g in gaps]
    for way in ways
}
assert max(distances["as printed"]) > 2.8
assert max(distances["sign put right"]) > 1e-4
assert max(distances["maps.Cayley"] + distances["maps.MatrixExp"]) < 1e-6

# %%

figure, ax = plt.subplots(num="cayley-angles", figsize=(7.4, 4.2))
styles = [("#d55e00", "--"), ("#e69f00", "-."), ("#0072b2", "-"), ("#000000", ":")]
for (way, values), (color, dashes) in zip(distances.items(), styles, strict=True):
    shown = [max(value, 1e-8) for value in values]
    ax.plot(gaps, shown, dashes, color=color, lw=2, label=way)
ax.set(
    xscale="log",
    xlim=(180, 1e-3),
    xlabel="degrees that the rotation is short of 180°",
    yscale="log",
    ylabel="distance from what was assigned (≥ $10^{-8}$)",
    title="Assigning a rotation, in float32",
)
ax.grid(alpha=0.3)
legend = ax.legend(loc="center left", bbox_to_anchor=(0, 0.55))

# %%
# And it trains from there: −I, which no Cayley transform reaches, is a start like any
# other, and on its way to a target the layer stays orthogonal.

layer = with_chain(nn.Linear(3, 3, bias=False), maps.Skew(), maps.Cayley())
layer.weight = -torch.eye(3)
print("signs:", layer.parametrizations.weight[1].signs.tolist())
assert layer.parametrizations.weight[1].signs.tolist() == [-1, -1, -1]
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for _ in range(20):
    (layer.weight + rotation(1.0)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    Q = layer.weight.detach()
    assert_close(Q.mT @ Q, torch.eye(3))
check_distance("distance from the target", Q, -rotation(1.0), at_most=0.01)
check_distance("distance of QᵀQ from I", Q.mT @ Q, torch.eye(3))

# sphinx_gallery_start_ignore
if AS_SCRIPT:
    for number in plt.get_fignums():
        picture = plt.figure(number)
        path = folder / f"{picture.get_label()}.png"
        picture.savefig(path, dpi=150)
        print("wrote", path)
# sphinx_gallery_end_ignore
