"""Draw the pictures of docs/families, one for each page: `make pictures`.

Each shows random weights of fixed seeds, made by the maps of its page, so that a
picture is drawn again where they change.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import matrices
import shapes
import spectra
import torch
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parent.parent / "families" / "pictures"
DOTS_PER_INCH, LARGE = 140, 60_000

PICTURES: dict[str, Callable[[], Figure]] = {
    "combinators": matrices.combinators,
    "convolutions": spectra.convolutions,
    "definite": shapes.definite,
    "dynamics": spectra.dynamics,
    "entrywise": shapes.entrywise,
    "invertible": spectra.invertible,
    "linear": matrices.linear,
    "low_rank": spectra.low_rank,
    "norms": shapes.norms,
    "orthogonal": spectra.orthogonal,
    "simplex": shapes.simplex,
    "sparse": matrices.sparse,
    "stochastic": matrices.stochastic,
}


def draw(family: str, folder: Path) -> Path:
    """Draw the picture of a page."""
    torch.manual_seed(0)
    path = folder / f"{family}.png"
    drawn = io.BytesIO()
    PICTURES[family]().savefig(drawn, dpi=DOTS_PER_INCH)
    picture = Image.open(drawn).convert("RGB")
    if drawn.getbuffer().nbytes > LARGE:  # has points, not heat maps: few colors do
        picture = picture.quantize()
    picture.save(path, optimize=True)
    return path


def main() -> None:
    """Draw the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="%(default)s")
    options = parser.parse_args()
    unknown = set(options.families) - set(PICTURES)
    if unknown:
        parser.error(f"no picture of {', '.join(sorted(unknown))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for family in options.families or PICTURES:
        print(draw(family, options.folder))


if __name__ == "__main__":
    main()
