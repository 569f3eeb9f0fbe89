r"""
Eigenvalues of a recurrent kernel in training
=============================================

A linear recurrence :math:`h_{t+1} = W h_t` multiplies what lies along an eigenvector by
its eigenvalue at every step. An orthogonal kernel has all of them on the unit circle,
before, during and after training; a free one does not stay there.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import holdfast

_ = torch.manual_seed(0)
n, steps, length = 24, 60, 40

# %%
# Two kernels with the same start, an orthogonal matrix, learn the same: to keep a
# signal for 40 steps and to give it out turned by a fixed rotation.

start = nn.init.orthogonal_(torch.empty(n, n))
target = nn.init.orthogonal_(torch.empty(n, n))


def kernel(*, constrained):
    layer = nn.Linear(n, n, bias=False)
    if constrained:
        holdfast.orthogonal(layer)
    layer.weight = start if constrained else nn.Parameter(start.clone())
    return layer


def train(layer):
    """Return the kernel before and after every step."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    signals = torch.Generator().manual_seed(1)
    history = [layer.weight.detach().clone()]
    for _ in range(steps):
        h = first = torch.randn(32, n, generator=signals)
        with holdfast.cached():
            for _ in range(length):
                h = layer(h)
            loss = (h - first @ target.T).square().mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        history.append(layer.weight.detach().clone())
    return torch.stack(history)


kernels = {
    "free": train(kernel(constrained=False)),
    "orthogonal": train(kernel(constrained=True)),
}
moduli = {name: torch.linalg.eigvals(W).abs() for name, W in kernels.items()}
for name, values in moduli.items():
    print(f"{name:<11} moduli from {values.min():.4f} to {values.max():.4f}")
assert (moduli["orthogonal"] - 1).abs().max() < 1e-5
assert (moduli["free"] - 1).abs().max() > 0.05

# %%
# What 40 steps make of a signal of norm 1, at the end of training:

for name, W in kernels.items():
    factors = torch.linalg.svdvals(torch.linalg.matrix_power(W[-1], length))
    print(f"{name:<11} times {factors.min():.1e} to {factors.max():.1e}")
    if name == "orthogonal":
        assert (factors - 1).abs().max() < 1e-4

# %%

figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.4), layout="constrained")
for ax, (name, history) in zip(axes, kernels.items(), strict=True):
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.4"))
    for step in range(0, steps + 1, 4):
        values = torch.linalg.eigvals(history[step])
        color = [plt.colormaps["viridis"](step / steps)]
        ax.scatter(values.real, values.imag, s=14, c=color)
    ax.set(title=name, xlabel="real part", aspect="equal")
axes[0].set_ylabel("imaginary part")
scale = plt.cm.ScalarMappable(plt.Normalize(0, steps), "viridis")
figure.colorbar(scale, ax=axes, label="step of training", shrink=0.8)
_ = figure.suptitle("An orthogonal kernel keeps its eigenvalues on the unit circle")
