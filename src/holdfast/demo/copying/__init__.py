"""The copying memory task: ten symbols, a long wait, and then all ten again.

An orthogonal recurrent kernel carries them over a thousand steps; an LSTM and a tanh
RNN with the same budget do not leave the loss of a net that remembers nothing.

task -> network -> training -> summary
"""
