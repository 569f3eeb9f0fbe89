"""Handwritten digits that a recurrent network has to remember.

An image enters row by row in 8 steps, then comes noise, and only after the last step
does the network say which digit it was. Its recurrent kernel is kept orthogonal in one
run and unconstrained in two others; nothing else differs.

data -> network -> training (with what measuring sees) -> summary and pictures
"""
