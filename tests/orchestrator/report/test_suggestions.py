"""Suggested commands can be typed as they are."""

from __future__ import annotations

import shlex

from orchestrator.ledger.records import StoredPlan
from orchestrator.planning.sweep_file import parse_sets
from orchestrator.report.model import Missing, Place
from orchestrator.report.suggestions import suggest_commands
from tests.support.doubles import plan_of


def test_pre_training_on_everything_is_suggested_without_the_data_that_planning_fills_in() -> None:
    weights = {"source": "everything", "epochs": 7}
    sweep = {"grid": "voc-part", "axes": {"category": ["voc_part/cat"]}, "base": {"weights": weights}}
    planned = plan_of(sweep, data_root="/data")
    stored = StoredPlan.of("mine", "laptop", "/data", planned.jobs, planned.upstream_keys, planned.resources)
    absent = Missing(1, Place("single", "voc_part", "logistic", "dog"), "alexnet", "ordinary", "", "")
    (line,) = suggest_commands(stored, [absent])
    words = shlex.split(line.partition(": ")[2].partition(";")[0])
    sets = parse_sets([words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert sets["weights.source"] == "everything"
    again = plan_of("voc-part", data_root="/data", sets=sets)
    assert again.upstream_keys == planned.upstream_keys
