r"""
Covariances that stay ellipses
==============================

A Gaussian is fitted by gradient descent on its covariance. It has to stay positive
definite: only then are the curves of equal density ellipses, and only then does the
loss exist. A symmetric matrix leaves the set after a few steps; parametrized by
`holdfast.spd`, it cannot.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import holdfast
from holdfast import maps, sets

_ = torch.manual_seed(0)

# %%
# Points from a Gaussian that is thin and turned, and the negative log likelihood.

truth = torch.tensor([[2.2, 1.5], [1.5, 1.2]])
points = torch.randn(400, 2) @ torch.linalg.cholesky(truth).T
empirical = points.T @ points / len(points)


def loss_of(C):
    """Return twice the mean negative log likelihood, but for a constant."""
    return torch.trace(torch.linalg.solve(C, empirical)) + C.det().abs().log()


def fit(register, steps=120, lr=0.5):
    """Return the covariances on the way, until one is no covariance."""
    host = nn.Module()
    host.covariance = nn.Parameter(0.3 * torch.eye(2))
    register(host)
    optimizer = torch.optim.SGD(host.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    path = [host.covariance.detach().clone()]
    for _ in range(steps):
        loss = loss_of(host.covariance)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(host.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        path.append(host.covariance.detach().clone())
        if not sets.SymmetricPositiveDefinite().contains(path[-1]):
            break
    return path


def symmetric(host):
    holdfast.register_parametrization(host, "covariance", maps.Symmetric())


def definite(host):
    holdfast.spd(host, "covariance")


paths = {"symmetric": fit(symmetric), "positive definite": fit(definite)}

# %%
# The one path leaves the set, the other ends at the covariance of the points.

for name, path in paths.items():
    print(f"{name:<18} {len(path) - 1:>3} steps, eigenvalues at the end:", end=" ")
    print(*(f"{value:.3f}" for value in torch.linalg.eigvalsh(path[-1])))
assert torch.linalg.eigvalsh(paths["symmetric"][-1]).min() <= 0
assert all(map(sets.SymmetricPositiveDefinite().contains, paths["positive definite"]))
assert torch.dist(paths["positive definite"][-1], empirical) < 0.01

# %%

angles = torch.linspace(0, 2 * torch.pi, 200)
circle = torch.stack([angles.cos(), angles.sin()])
figure, axes = plt.subplots(
    1, 2, figsize=(8.4, 4.2), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, path) in zip(axes, paths.items(), strict=True):
    ax.plot(*points.T, ".", color="0.75", ms=3)
    shown = [C for C in path if sets.SymmetricPositiveDefinite().contains(C)]
    for place, C in enumerate(shown[:: max(1, len(shown) // 12)]):
        color = plt.colormaps["viridis"](place / 13)
        ax.plot(*(2 * torch.linalg.cholesky(C) @ circle), color=color, lw=1.2)
    end = "leaves the set" if len(shown) < len(path) else "arrives"
    ax.set(title=f"{name}: {end} after {len(path) - 1} steps", aspect="equal")
    ax.set(xlim=(-5, 5), ylim=(-4, 4), xlabel="first coordinate")
axes[0].set_ylabel("second coordinate")
_ = figure.suptitle("A positive definite parametrization has an ellipse at every step")
