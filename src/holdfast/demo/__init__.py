"""The runnable applications behind ``holdfast demo``."""
