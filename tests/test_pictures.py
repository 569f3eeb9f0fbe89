"""Every page of a family shows its picture, and the script draws it."""

from __future__ import annotations

import importlib
import re
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs/families"
SHOWN = re.compile(r"!\[([^\]]+)\]\(pictures/(\w+)\.png\)")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST, LARGEST_OF_ALL = 80_000, 1_000_000


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the packages of the demo")
    monkeypatch.syspath_prepend(ROOT / "docs/pictures")
    return importlib.import_module("draw")


def faults(pages: Path, drawn: set[str]) -> list[str]:
    """Return what is wrong with the pictures of a folder of pages."""
    found = []
    texts = [page for page in sorted(pages.glob("*.md")) if page.stem != "index"]
    for page in texts:
        shown = [name for _, name in SHOWN.findall(page.read_text("utf-8"))]
        if page.stem not in shown:
            found.append(f"{page.name} does not show pictures/{page.stem}.png")
        found += [f"nothing draws {name}" for name in shown if name not in drawn]
    pictures = {path.stem: path for path in (pages / "pictures").glob("*")}
    names = {page.stem for page in texts}
    found += [f"no page shows {name}" for name in sorted({*pictures, *drawn} - names)]
    for name in sorted(drawn & names):
        if name not in pictures:
            found.append(f"{name} is not drawn: run `make pictures`")
        elif not legible(pictures[name].read_bytes()):
            found.append(f"{name} is no PNG of 900 to 1400 pixels in {LARGEST} bytes")
    return found


def legible(data: bytes) -> bool:
    width = struct.unpack(">I", data[16:20])[0] if data[:8] == SIGNATURE else 0
    return 900 <= width <= 1400 and len(data) <= LARGEST


def test_every_page_shows_a_picture_that_the_script_draws(script):
    assert faults(PAGES, set(script.PICTURES)) == []
    sizes = [path.stat().st_size for path in (PAGES / "pictures").iterdir()]
    assert sum(sizes) <= LARGEST_OF_ALL


def test_pages_without_a_picture_and_pictures_without_a_page_are_noticed(tmp_path):
    (tmp_path / "pictures").mkdir()
    good = (PAGES / "pictures/norms.png").read_bytes()
    (tmp_path / "norms.md").write_text("![balls](pictures/norms.png)")
    (tmp_path / "pictures/norms.png").write_bytes(good)
    assert faults(tmp_path, {"norms"}) == []
    (tmp_path / "sparse.md").write_text("![](pictures/sparse.png)")  # says nothing
    (tmp_path / "linear.md").write_text("![matrices](pictures/linear.png)")
    (tmp_path / "simplex.md").write_text("![triangles](pictures/simplex.png)")
    (tmp_path / "pictures/linear.png").write_bytes(good + bytes(LARGEST))
    (tmp_path / "pictures/old.png").write_bytes(good)
    assert faults(tmp_path, {"norms", "linear", "simplex"}) == [
        "sparse.md does not show pictures/sparse.png",
        "no page shows old",
        f"linear is no PNG of 900 to 1400 pixels in {LARGEST} bytes",
        "simplex is not drawn: run `make pictures`",
    ]


@pytest.mark.parametrize("family", ["linear", "entrywise"])
def test_a_picture_is_the_same_each_time(script, family, tmp_path):
    first = script.draw(family, tmp_path).read_bytes()
    assert script.draw(family, tmp_path).read_bytes() == first
    assert legible(first)


def test_every_function_draws(script):
    torch = importlib.import_module("torch")
    for name, make in script.PICTURES.items():
        torch.manual_seed(0)
        figure = make()
        assert figure.get_suptitle(), name
        drawn = [ax for ax in figure.axes if ax.has_data()]
        assert len(drawn) == len(figure.axes), f"{name} has an empty panel"
