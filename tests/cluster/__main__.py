"""Play scenarios on a cluster of this machine and print a table. Exits with 1 if one fails."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import hosts, services
from tests.cluster.campaign import Row, play, reference_of
from tests.cluster.scenarios import SCENARIOS, Scenario

SHORT_SCALE = 0.33


def main() -> int:
    """Play the scenarios of the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="play this scenario; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--short", action="store_true", help="a few scenarios, with outages of a third of their length")
    parser.add_argument("--folder", type=Path, help="where logs are kept (default: a new folder)")
    parser.add_argument("--reference", type=Path, help="folder of an undisturbed sweep of the same code, to reuse it")
    options = parser.parse_args()
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:24} {scenario.what}")
        return 0
    unknown = set(options.only or ()) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; see --list")
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (scenario.name in options.only if options.only else scenario.short or not options.short)
    ]
    return play_all(chosen, options.folder, options.reference, SHORT_SCALE if options.short else 1.0)


def play_all(chosen: Sequence[Scenario], folder: Path | None, reference_folder: Path | None, scale: float) -> int:
    """Play scenarios one after the other and print a line for each. Returns the exit code.

    Args:
        chosen: to play.
        folder: where logs are kept; None makes a new folder.
        reference_folder: of an undisturbed sweep of the same code; None runs it.
        scale: factor on the length of outages.
    """
    if absent := hosts.missing() or services.missing():
        print(f"No cluster can be made on this machine: {absent}.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that everything is stopped
    folder = folder or Path(tempfile.mkdtemp(prefix="orch-cluster-"))
    print(f"The undisturbed sweep comes first. All files are below {folder}.", flush=True)
    references = {}
    for images in dict.fromkeys(scenario.images for scenario in chosen):
        references[images] = reference_of((reference_folder or folder / "undisturbed") / images, images)
        jobs, seconds = len(references[images].weights), references[images].seconds
        print(f"{jobs} jobs undisturbed, {images} images: {seconds:.0f} s", flush=True)
    print(f"\n{'scenario':24}  seconds  lost  attempts  idle  verdict", flush=True)
    failed = 0
    for row in play(folder, chosen, references, scale):
        failed += bool(row.wrong)
        print(line(row), flush=True)
    print(f"\n{len(chosen) - failed} of {len(chosen)} ended as they should.")
    return 1 if failed else 0


def line(row: Row) -> str:
    """Format a row, with lines below it for its notes and everything that is wrong."""
    attempts = f"{row.attempts}/{row.jobs}"
    first = (
        f"{row.name:24}  {row.seconds:7.0f}  {row.lost:4}  {attempts:>8}  {row.idle:4.0f}  "
        f"{'BROKEN' if row.wrong else 'whole ':6}  {time.strftime('%H:%M:%S')}"
    )
    return "\n".join([first, *(f"      {note}" for note in row.notes), *(f"      - {wrong}" for wrong in row.wrong)])


if __name__ == "__main__":
    sys.exit(main())
