"""How sphinx-gallery runs docs/gallery/plot_*.py."""

from __future__ import annotations

from pathlib import Path

import torch

SOURCE = Path(__file__).parent.parent / "gallery"


def reset(_configuration, _file):
    """Start every page as a fresh interpreter would, as far as torch goes."""
    torch.set_printoptions(profile="default")
    torch.manual_seed(0)


class TutorialFirst:
    """The order of the pages."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        return not name.endswith("_tutorial.py"), name


CONFIGURATION = {
    "examples_dirs": [str(SOURCE)],
    "gallery_dirs": ["generated/gallery"],
    "within_subsection_order": "gallery.TutorialFirst",
    "reset_modules": ("matplotlib", "gallery.reset"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 3600,
}
