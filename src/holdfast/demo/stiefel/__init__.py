"""Matrices with orthonormal columns, trained to optima that are known in closed form.

Principal components of small patches of photographs, whose optimum `eigh` finds, and
the rotation between two clouds of points (Procrustes), whose optimum the SVD finds: how
long does each library take to come near it?

problems -> race -> summary (with the pictures)
"""
