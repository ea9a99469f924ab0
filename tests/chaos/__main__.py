"""Run rounds of fault injection and print a line for each. Exits with 1 if a round loses or repeats anything."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.blows import JOBS, plan_round
from tests.chaos.campaign import Outcome, play, undisturbed


def main() -> int:
    """Run the rounds of the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="number of rounds (default 25)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round; the others count up")
    parser.add_argument("--jobs", type=int, default=JOBS, choices=range(8, 81, 8), help="of the sweep (default 40)")
    parser.add_argument("--folder", type=Path, help="where failed rounds keep their files (default: a new folder)")
    parser.add_argument(
        "--stage", choices=("machine", "cluster"), default="machine",
        help="a private Ray on this machine, or a cluster of it (tests/cluster; four jobs)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", type=Path, help="folder of an undisturbed sweep of the same code on a cluster, to reuse it"
    )
    options = parser.parse_args()
    if options.stage == "cluster":
        from tests.cluster.__main__ import play_all
        from tests.cluster.rounds import round_of

        seeds = range(options.seed, options.seed + options.rounds)
        return play_all([round_of(seed) for seed in seeds], options.folder, options.reference, 1.0)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="orch-chaos-"))
    print(f"Running the undisturbed sweep first. All files are below {folder}.", flush=True)
    reference = undisturbed(folder / "undisturbed", options.jobs)
    print(f"{len(reference.weights)} jobs undisturbed: {reference.seconds:.0f} s\n", flush=True)
    print(f"{'seed':>4}  {'store':7}  {'runs':>5}  {'seconds':>7}  verdict  faults and exit codes", flush=True)
    failed = 0
    for seed in range(options.seed, options.seed + options.rounds):
        outcome = play(folder / f"round-{seed}", plan_round(seed, jobs=options.jobs), reference)
        failed += bool(outcome.wrong)
        print(row(outcome), flush=True)
    print(f"\n{options.rounds - failed} of {options.rounds} rounds lost nothing and repeated nothing.")
    return 1 if failed else 0


def row(outcome: Outcome) -> str:
    """Format the outcome of a round, with a line below it for everything that is wrong."""
    plan, verdict = outcome.plan, "BROKEN " if outcome.wrong else "whole  "
    line = (
        f"{plan.seed:>4}  {plan.store:7}  {len(outcome.codes):>5}  {outcome.seconds:>7.0f}  {verdict}  "
        f"{', '.join(outcome.struck) or 'none'}; {' '.join(str(code) for code in outcome.codes)}"
    )
    return "\n".join([line, *(f"      - {wrong}" for wrong in outcome.wrong)])


if __name__ == "__main__":
    sys.exit(main())
