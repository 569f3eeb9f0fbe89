"""A classifier of digits that proves how far an image may be changed.

Orthogonal weights and MaxMin never stretch a distance, so the margin between two logits
bounds how near the next image with another answer can be. An attack looks for one.

network -> training, attack -> certificate -> summary
"""
