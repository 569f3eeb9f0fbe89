r"""
Singular values under three bounds
==================================

The largest singular value of a weight is the most that a layer stretches its input, the
smallest one the least, and their ratio is the condition number. `maps.SpectralNorm`
sets the largest to one, `maps.SpectralBound` keeps it below a bound, and
`maps.BoundedSVD` keeps all of them in an interval.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import holdfast
from holdfast import maps

_ = torch.manual_seed(0)
n, steps = 16, 80

# %%
# The same regression, which asks for singular values from 0.01 to 5, under each map.

U, V = (nn.init.orthogonal_(torch.empty(n, n)) for _ in range(2))
wanted = torch.logspace(-2, 0.7, n)
target = U @ torch.diag(wanted) @ V.T


def train(map_):
    """Return the singular values after every step."""
    layer = nn.Linear(n, n, bias=False)
    nn.init.orthogonal_(layer.weight)
    if map_ is not None:
        holdfast.register_parametrization(layer, "weight", map_)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    history = []
    for _ in range(steps):
        x = torch.randn(64, n)
        loss = (layer(x) - x @ target.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(torch.linalg.svdvals(layer.weight.detach()))
    return torch.stack(history)


values = {
    "free": train(None),
    "SpectralNorm(exact=True)": train(maps.SpectralNorm(exact=True)),
    "SpectralBound(2)": train(maps.SpectralBound(2.0)),
    "BoundedSVD(0.5, high=2)": train(maps.BoundedSVD(0.5, high=2.0)),
}

# %%
# The bounds hold not only at the end, but at every step.

for name, history in values.items():
    print(f"{name:<25} {history[-1].min():.3f} to {history[-1].max():.3f}")
assert values["free"][-1].max() > 4
assert (values["SpectralNorm(exact=True)"].amax(1) - 1).abs().max() < 1e-5
assert values["SpectralBound(2)"].max() < 2 + 1e-5
assert values["BoundedSVD(0.5, high=2)"].min() > 0.5 - 1e-5
assert values["BoundedSVD(0.5, high=2)"].max() < 2 + 1e-5

# %%

figure, axes = plt.subplots(
    2, 2, figsize=(8.4, 6), sharex=True, sharey=True, layout="constrained"
)
bounds = [(), (1,), (2,), (0.5, 2)]
for ax, (name, history), lines in zip(axes.flat, values.items(), bounds, strict=True):
    ax.plot(history, color="#0072b2", lw=0.8)
    for line in lines:
        ax.axhline(line, color="#d55e00", ls="--", lw=1.2)
    ax.set(title=name, yscale="log", ylim=(5e-3, 10))
for ax in axes[1]:
    ax.set_xlabel("step of training")
for ax in axes[:, 0]:
    ax.set_ylabel("singular values")
_ = figure.suptitle("Singular values keep to the dashed bounds at every step")
