"""Runs rounds, and compares each with one undisturbed sweep."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.chaos.adversary import Adversary
from tests.chaos.blows import JOBS, Round
from tests.chaos.stage import LONGEST_SECONDS, Stage, Stuck, staged
from tests.chaos.verdict import Reference, check, read_reference


class Outcome(NamedTuple):
    """What happened in a round."""

    plan: Round
    struck: tuple[str, ...]
    """The faults that were injected."""
    codes: tuple[int, ...]
    """Exit codes of the commands in their order; negative: the signal that killed the command."""
    seconds: float
    wrong: tuple[str, ...]
    """Everything that does not hold; empty for a passed round."""


def undisturbed(
    folder: Path,
    jobs: int = JOBS,
    text: str | None = None,
    workers: int = 2,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Reference:
    """Run a sweep without faults.

    Args:
        folder: a new folder.
        jobs: number of jobs, without pre-training.
        text: the sweep file, if not the one of the campaign.
        workers: number of workers.
        settings: more environment variables of the command.
    """
    stage = Stage(folder, jobs, text=text, workers=workers)
    stage.environment |= settings
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
    """Run one round. Its folder is kept if something is wrong."""
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
