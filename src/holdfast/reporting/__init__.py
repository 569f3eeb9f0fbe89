"""What a model's parametrizations amount to, as figures; nothing is changed by looking.

measuring.py    what is computed in a model, and evaluating it without a trace
watching.py     residuals(): cheap enough to be asked during training
training.py     Watch: residuals and spectra in a training loop, and what is lost
summary.py      report(): one line for each tensor
steps.py        trace(): one line for each map of a chain
nearest.py      discover(): one line for each set that is near
tables.py       such lines as text, HTML, JSON and data frames
"""
