"""A plan is written once per value and read back as it was, and its equal parts are one object in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger.home import UNMOVED, Relocation
from orchestrator.ledger.packed_plan import pack, pack_names, unpack, unpack_names
from orchestrator.ledger.records import StoredPlan
from schemas.sweep import Resources
from tests.support.doubles import plan_of

PLANNED = plan_of({"grid": "smoke", "axes": {"seed": [0, 1, 2]}})
PLAN = StoredPlan.of("s", "laptop", "/data", PLANNED.jobs, PLANNED.upstream_keys, Resources(workers=3))


def read_back(plan: StoredPlan) -> StoredPlan:
    found = unpack(pack(plan), UNMOVED.fields)
    return found.model_copy(update={"names": unpack_names(pack_names(plan.names))})


def test_a_plan_is_read_back_as_it_was() -> None:
    assert read_back(PLAN) == PLAN
    assert read_back(PLAN).specs == PLANNED.jobs


def test_a_plan_may_have_jobs_of_different_fields() -> None:
    jobs = ({"seed": 1}, {"seed": 1, "loss": None}, {"loss": {"kind": [1, True, 1.0]}}, {})
    plan = StoredPlan(name="s", profile="laptop", jobs=jobs)
    assert [list(map(repr, job.items())) for job in read_back(plan).jobs] == [
        list(map(repr, job.items())) for job in jobs
    ]


def test_each_value_is_written_once() -> None:
    few, many = (StoredPlan(name="s", profile="p", jobs=PLAN.jobs * times) for times in (1, 50))
    each = (len(pack(many)) - len(pack(few))) / (len(many.jobs) - len(few.jobs))
    assert each < 50


def test_equal_parts_are_one_object_as_fields_and_as_specs() -> None:
    found = read_back(PLAN)
    pairs = [(a, b) for a in range(len(found.jobs)) for b in range(a) if found.jobs[a]["data"] == found.jobs[b]["data"]]
    assert pairs
    for a, b in pairs:
        assert found.jobs[a]["data"] is found.jobs[b]["data"]
        assert found.specs[a].data is found.specs[b].data


def test_what_an_earlier_orch_wrote_is_read() -> None:
    assert unpack(PLAN.model_dump_json().encode(), UNMOVED.fields) == PLAN


def test_recorded_paths_are_found_in_either_form(tmp_path: Path) -> None:
    weights = {"source": "file", "path": "/old/cache/w.mat"}
    plan = StoredPlan(name="s", profile="p", jobs=({"weights": weights}, {"weights": dict(weights)}))
    here = Relocation(tmp_path, (Path("/old"),))
    for content in (pack(plan), plan.model_dump_json().encode()):
        moved = unpack(content, here.fields)
        assert [job["weights"]["path"] for job in moved.jobs] == [str(tmp_path / "cache/w.mat")] * 2


@pytest.mark.parametrize("content", [b"[[1]]", b"[3]", b"3", b"x"])
def test_names_of_another_version_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack_names(content)
