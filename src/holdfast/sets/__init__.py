"""What holds: sets of tensors with residual, contains, project, sample and dim."""

from ..lazily import attach

__getattr__, __dir__ = attach(__name__, __file__)
