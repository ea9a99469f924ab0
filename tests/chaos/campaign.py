"""Plays rounds against one undisturbed sweep, and says of each what was struck and whether everything held."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

from tests.chaos.adversary import Adversary
from tests.chaos.blows import JOBS, Round
from tests.chaos.stage import LONGEST_SECONDS, Stage, Stuck, staged
from tests.chaos.verdict import Reference, check, read_reference


class Outcome(NamedTuple):
    plan: Round
    struck: tuple[str, ...]
    codes: tuple[int, ...]
    """Exit codes of the commands, in the order in which they were typed; negative: the signal that killed it."""
    seconds: float
    wrong: tuple[str, ...]


def undisturbed(folder: Path, jobs: int = JOBS) -> Reference:
    """Run the sweep in peace."""
    stage = Stage(folder, jobs)
    began = time.monotonic()
    try:
        stage.drive()
        assert stage.driver is not None
        code = stage.driver.wait(2 * LONGEST_SECONDS)
        assert code == 0, stage.log.read_text()
        return read_reference(stage, jobs, time.monotonic() - began)
    finally:
        stage.close()


def play(folder: Path, plan: Round, reference: Reference) -> Outcome:
    """One round. The stage stays on the disk where something is wrong."""
    began = time.monotonic()
    with staged(folder, plan, reference.folder) as stage:
        adversary = Adversary(stage, plan)
        try:
            adversary.play()
            wrong = check(stage, adversary, reference)
        except Stuck as stuck:
            wrong = [f"{stuck}; see {stage.log}"]
        codes = tuple(stage.codes)
        if wrong and plan.small_disk:
            shutil.copytree(stage.home, folder / "home-kept", dirs_exist_ok=True)
    if not wrong:
        shutil.rmtree(folder)
    return Outcome(plan, tuple(adversary.struck), codes, time.monotonic() - began, tuple(wrong))
