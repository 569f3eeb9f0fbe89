"""Digits recognized by a network most of whose weights are zero, N of every M kept.

pruning -> summary and pictures
"""
