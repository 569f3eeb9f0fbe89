"""What holdfast costs, beside torch's own parametrizations and beside plain modules.

Each file is named after its claim and measures it:

    python -m benchmarks.reading_an_identity_costs_at_most_1_5_plain_reads

``--quick`` gives a rough answer within seconds, ``--json`` the raw numbers.
``python -m benchmarks`` runs all of them and writes ``benchmarks/results/``. No claim
but one large table is ``python -m benchmarks.orthogonal``, with ``--write``.
"""
