"""A number that changes with every bit of a tensor, by whatever way it was written."""

from __future__ import annotations

import torch
from torch import Tensor

# Entries are mixed in pieces, so that the memory for it does not grow with the tensor.
_PIECE = 1 << 22
_UNITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}

# Odd numbers below 2^31 without a pattern in their bits; products wrap around.
_PLACE, _FIRST, _SECOND = 0x1E3779B1, 0x2C1B3C6D, 0x297A2D39


def fingerprint(tensor: Tensor) -> int:
    """Return 64 bits that depend on each bit of a tensor and on where it stands.

    A write through ``.data`` or NumPy moves no version. Keeping a copy to compare with
    would take the memory of another model; this takes one pass, on any device.
    """
    flat = tensor.detach().resolve_conj().contiguous()
    flat = (torch.view_as_real(flat) if flat.is_complex() else flat).reshape(-1)
    bits = flat.view(_UNITS[flat.element_size()])
    total = 0
    for piece in bits.split(_PIECE):
        total = (31 * total + int(_mixed(piece).sum(dtype=torch.int64))) % (1 << 64)
    return total


def _mixed(bits: Tensor) -> Tensor:
    """Return a number for each entry and its place, as hash tables mix theirs.

    Other entries have other numbers: each step can be undone.
    """
    place = torch.arange(bits.numel(), dtype=torch.int32, device=bits.device)
    mixed = (bits.to(torch.int32) ^ (place * _PLACE)) * _FIRST
    mixed = (mixed ^ (mixed >> 15 & 0x1FFFF)) * _SECOND
    return mixed ^ (mixed >> 13 & 0x7FFFF)
