"""Covariance matrices that stay positive definite while they are trained.

The three wines of scikit-learn's data set get a normal distribution each. The best
covariances are known, those of the samples, so that one sees how near training comes,
and what becomes of a matrix that nothing keeps definite.

fitting -> summary and pictures
"""
