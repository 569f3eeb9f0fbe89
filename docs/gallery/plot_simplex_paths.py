r"""
Three ways through the simplex
==============================

Probability vectors of three entries are the points of a triangle. Gradient descent to
the same target takes a path that depends on the parametrization: the set says what
holds, the map how to get there. No path leaves the triangle.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import holdfast
from holdfast import maps, sets

# %%
# Each map starts at the same vector, and follows the gradient of the same divergence in
# its own coordinates, in small steps.

start = torch.tensor([0.05, 0.15, 0.8])
target = torch.tensor([0.7, 0.25, 0.05])


def descend(map_, steps=1000, lr=0.1):
    """Return the vectors on the way."""
    host = nn.Module()
    host.p = nn.Parameter(start.clone())
    holdfast.register_parametrization(host, "p", map_)
    optimizer = torch.optim.SGD(host.parameters(), lr=lr)
    path = [host.p.detach().clone()]
    for _ in range(steps):
        p = host.p
        loss = (target * (target / p).log()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append(host.p.detach().clone())
    return torch.stack(path)


chains = {
    "Softmax": maps.Softmax(),
    "IsometricLogRatio": maps.IsometricLogRatio(),
    "StickBreaking": maps.StickBreaking(),
}
paths = {name: descend(map_) for name, map_ in chains.items()}
for name, path in paths.items():
    print(f"{name:<18} distance from the target: {torch.dist(path[-1], target):.1e}")
    assert sets.Simplex().contains(path)
    assert torch.dist(path[-1], target) < 0.02

# %%
# Softmax has one coordinate too many, and moves as the isometric log-ratio does in this
# one case: the extra direction, all coordinates alike, has no gradient. Stick breaking
# treats its entries one after the other, and takes another path.

assert torch.dist(paths["Softmax"], paths["IsometricLogRatio"]) < 1e-4
assert torch.dist(paths["Softmax"], paths["StickBreaking"]) > 0.1

# %%

corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
figure, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
ax.fill(*corners.T, facecolor="0.96", edgecolor="0.4")
styles = [("#0072b2", "-", 4), ("#e69f00", "--", 2), ("#d55e00", "-", 2)]
for (name, path), (color, dashes, width) in zip(paths.items(), styles, strict=True):
    ax.plot(*(path @ corners).T, dashes, color=color, lw=width, label=name)
for point, mark, name in ((start, "o", "start"), (target, "*", "target")):
    ax.plot(*(point @ corners), mark, color="black", ms=9, label=name, ls="none")
for index, corner in enumerate(corners.tolist()):
    place = (corner[0], corner[1] + (0.04 if index == 2 else -0.06))
    ax.annotate(f"$p_{index + 1} = 1$", place, ha="center")
ax.set(aspect="equal", ylim=(-0.1, 0.95), title="No path leaves the simplex")
ax.axis("off")
_ = ax.legend(loc="upper left", frameon=False)
