"""The short version of `python -m tests.cluster`, and what its scenarios must cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import hosts, services
from tests.cluster.rounds import KINDS, plan_round
from tests.cluster.scenarios import SCENARIOS, STATES

ABSENT = hosts.missing() or services.missing()


def test_scenarios_have_names_of_their_own_and_say_what_happens() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert all(scenario.what.endswith(".") for scenario in SCENARIOS)
    assert sum(scenario.name.startswith("pause, ") for scenario in SCENARIOS) == len(STATES)


def test_a_seed_always_means_the_same_round_and_eleven_have_every_fault() -> None:
    assert plan_round(7) == plan_round(7)
    assert plan_round(7) != plan_round(8)
    assert {blow.kind for seed in range(1, 12) for blow in plan_round(seed)} == set(KINDS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(ABSENT), reason=f"no cluster can be made on this machine: {ABSENT}")
def test_a_sweep_ends_by_itself_whatever_its_cluster_loses(tmp_path: Path) -> None:
    from tests.cluster.campaign import play, reference_of

    reference = reference_of(tmp_path / "undisturbed")
    rows = list(play(tmp_path, [each for each in SCENARIOS if each.short], {"generated": reference}, scale=0.33))
    assert rows
    assert [row.wrong for row in rows] == [()] * len(rows), rows
