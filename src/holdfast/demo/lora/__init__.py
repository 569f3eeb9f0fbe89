"""A trained network for digits that low-rank changes teach mirrored ones.

adapting -> summary and pictures
"""
