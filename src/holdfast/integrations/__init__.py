"""Callbacks for trainers; each file needs the package that it is named after.

schedules.py       what lives as long as an optimizer, for both
lightning.py       HoldfastCallback for Lightning
transformers.py    HoldfastCallback for the Trainer of Hugging Face

TensorBoard needs no file: `holdfast.Watch(model, writer.add_scalar)`.
"""
