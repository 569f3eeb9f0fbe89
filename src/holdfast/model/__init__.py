"""A whole model at once."""
