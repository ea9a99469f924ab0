"""Which machines a job avoids, and what is said if all of them lack something."""

from __future__ import annotations

from orchestrator.execution.absence import AGAIN_SECONDS, Absence, sentence
from schemas.job import FileWeights, JobSpec
from schemas.results import Failure
from tests.support.doubles import plan_of

PLAIN: JobSpec = plan_of("smoke", categories=("cat",), backbones=("alexnet",), sets={"weights.source": "random"}).jobs[
    0
]
FROM_FILE = PLAIN.model_copy(update={"weights": FileWeights(path="/disk/w.pt", sha256="ab")})
OTHER_FILE = PLAIN.model_copy(update={"weights": FileWeights(path="/disk/other.pt", sha256="cd")})
NO_DATA = Failure(kind="DataAbsent", message="no photographs")
NO_WEIGHTS = Failure(kind="WeightsAbsent", message="no file")
NODES = ("a", "b")


def test_a_machine_without_the_data_is_avoided_by_all_jobs_of_the_data_for_a_while() -> None:
    absence = Absence()
    absence.note(PLAIN, NO_DATA, "a", 0.0)
    assert absence.avoided(FROM_FILE, 1.0) == {"a"}
    assert not absence.nowhere([PLAIN], NODES, 1.0)
    assert absence.is_known(1.0)
    assert absence.avoided(PLAIN, AGAIN_SECONDS) == frozenset()
    assert not absence.is_known(AGAIN_SECONDS)


def test_machines_that_left_long_ago_are_forgotten_with_the_next_note() -> None:
    absence = Absence()
    for number in range(5):
        absence.note(PLAIN, NO_DATA, f"node-{number}", number * AGAIN_SECONDS)
    assert len(absence._until) == 1
    assert absence.avoided(PLAIN, 4 * AGAIN_SECONDS + 1) == {"node-4"}


def test_a_machine_without_a_weights_file_is_avoided_by_the_jobs_that_start_from_it() -> None:
    absence = Absence()
    absence.note(FROM_FILE, NO_WEIGHTS, "a", 0.0)
    assert absence.avoided(FROM_FILE, 1.0) == {"a"}
    assert absence.avoided(OTHER_FILE, 1.0) == absence.avoided(PLAIN, 1.0) == frozenset()


def test_only_what_is_lacked_is_named() -> None:
    absence = Absence()
    for node in NODES:
        absence.note(FROM_FILE, NO_WEIGHTS, node, 0.0)
    said = sentence(absence.nowhere([FROM_FILE, PLAIN], NODES, 1.0), [FROM_FILE, PLAIN])
    assert said.startswith("1 job waits: no machine has the weights file /disk/w.pt. Pause the sweep")
    assert "data push" not in said
    for node in NODES:
        absence.note(PLAIN, NO_DATA, node, 0.0)
    said = sentence(absence.nowhere([FROM_FILE, PLAIN], NODES, 1.0), [FROM_FILE, PLAIN])
    assert said.startswith(
        "2 jobs wait: no machine has the data set voc_part. Run: orch data push voc_part; no machine"
    )
    assert not absence.nowhere([FROM_FILE, PLAIN], (*NODES, "c"), 1.0)
