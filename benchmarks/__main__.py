"""Run all benchmarks and write what they say to ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version

from .machine import FOLDER, facts
from .reporting import Report, table

CLAIMS = (
    "reading_an_identity_costs_at_most_1_5_plain_reads",
    "a_cached_hit_costs_at_most_1_5_plain_reads",
    "reading_three_maps_costs_at_most_3_plain_reads",
    "equal_blocks_compile_once",
    "serving_weight_norm_costs_what_the_folded_net_costs",
    "serving_orthogonal_costs_what_the_folded_net_costs",
    "a_folded_vocoder_costs_what_a_plain_one_costs",
    "registering_costs_no_more_than_in_torch",
    "importing_costs_at_most_50_ms",
    "asking_costs_well_under_a_microsecond",
    "asking_for_residuals_costs_at_most_one_training_step",
    "an_lstm_step_costs_no_more_than_in_torch",
    "an_orthogonal_recurrent_step_costs_at_most_1_1_plain_ones",
    "an_exponential_costs_a_sixth_of_torchs",
    "a_cayley_transform_costs_half_of_torchs",
    "reflections_cost_an_eighth_of_torchs",
    "thin_weights_cost_a_tenth_of_torchs_fastest",
    "a_thin_weight_costs_at_most_10_copies",
    "ten_thousand_rotations_cost_a_fifteenth_of_torchs",
    "ten_thousand_stable_matrices_are_stable",
    "geotorchs_spaces_cost_three_times_ours",
    "blocks_cost_at_most_1_1_batches",
    "lora_costs_no_more_than_its_formula",
    "batched_weights_cost_a_fraction_of_torchs",
    "an_orthogonal_training_step_costs_at_most_1_4_plain_ones",
    "loading_a_plain_checkpoint_costs_at_most_3_plain_loads",
    "watching_costs_at_most_2_percent_of_a_step",
)
METHOD = """\
Times are processor time on one thread. Contestants run short blocks in turns. "median"
and "quartiles" are over the blocks; the ratio is the median, over the rounds, of the
ratio within a round, with its quartiles, and it is what a target is held against; "of
minima" is the ratio of the fastest blocks. "again" is a second copy of the base: how
far its ratio is from 1 is the error of the method.
"""


def run(name: str, *, quick: bool) -> Report:
    """Run a benchmark in an interpreter of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    command += ["--quick"] if quick else []
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=FOLDER.parent
    )
    return Report.of_json(done.stdout)


def summary(reports: list[Report]) -> str:
    """Return one row for each target."""
    rows = [
        [r.claim, v.what, f"{v.measured:.2f}{v.unit}", str(v)]
        for r in reports
        for v in r.verdicts
    ]
    return table(["claim", "case", "holdfast", "target"], rows)


def main() -> None:
    """Run all of them, print each, and write the file."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough, and not written")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    options = parser.parse_args()
    machine = table(["machine", ""], list(facts()))
    reports: list[Report] = []
    for name in CLAIMS:
        reports.append(run(name, quick=options.quick))
        if not options.json:
            print(reports[-1], end="\n\n", flush=True)
    if options.json:
        print(f"[{','.join(report.as_json() for report in reports)}]")
    else:
        print(summary(reports))
    if not options.quick:
        parts = [f"# holdfast {version('holdfast')}", machine, METHOD, summary(reports)]
        parts += [f"## {report}" for report in reports]
        path = FOLDER / "results" / f"{version('holdfast')}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
