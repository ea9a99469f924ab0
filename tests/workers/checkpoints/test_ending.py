"""The end of an attempt is found whole and by its own number, or not at all."""

from __future__ import annotations

from pathlib import Path

from schemas.lifecycle import StopReason
from schemas.results import JobResult
from workers.checkpoints.ending import read_end, write_end

END = JobResult(job_key="k", attempt=2, stop_reason=StopReason.DIVERGED, epochs_done=3)


def test_an_end_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_end(tmp_path, END)
    assert read_end(tmp_path, "k", 2) == END


def test_another_attempt_has_no_end(tmp_path: Path) -> None:
    write_end(tmp_path, END)
    assert read_end(tmp_path, "k", 1) is None
    assert read_end(tmp_path, "k", 3) is None


def test_a_torn_end_and_one_of_another_attempt_count_as_none(tmp_path: Path) -> None:
    write_end(tmp_path, END)
    file = tmp_path / "k" / "attempt-2" / "result.json"
    whole = file.read_text()
    file.write_text(whole[:-5])
    assert read_end(tmp_path, "k", 2) is None
    file.write_text(whole.replace('"attempt":2', '"attempt":1'))
    assert read_end(tmp_path, "k", 2) is None


def test_an_end_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("a file instead of the job's folder")
    write_end(tmp_path, END)
    assert read_end(tmp_path, "k", 2) is None
