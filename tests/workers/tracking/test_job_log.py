"""Content of an attempt's log."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from schemas.errors import Interrupted, StoreError
from schemas.order import WorkOrder
from tests.support.toy import toy_spec
from workers.tracking.job_log import LOGGER, job_log, log_epoch, log_path
from workers.training.records import EpochRecord

SPEC = toy_spec("ordinary")


def order(log_dir: Path | None, attempt: int = 1) -> WorkOrder:
    return WorkOrder(
        spec=SPEC, run_id="r", attempt=attempt, tracking_uri="uri", cache_dir="c", checkpoint_dir="c",
        log_dir=str(log_dir) if log_dir else None, threads=3,
    )  # fmt: skip


def text(log_dir: Path, attempt: int = 1) -> str:
    return log_path(log_dir, SPEC.key, attempt).read_text(encoding="utf-8")


def test_a_log_says_who_did_what_and_how_it_ended(tmp_path: Path) -> None:
    with job_log(order(tmp_path)):
        LOGGER.info("training")
    first, second, third = text(tmp_path).splitlines()
    assert f"attempt 1 of {SPEC.title} ({SPEC.key}) in process " in first
    assert first.endswith("3 threads")
    assert (second.split(" INFO ")[1], third.split(" INFO ")[1]) == ("training", "finished")


def test_each_attempt_has_a_file_of_its_own(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with job_log(order(tmp_path, attempt)):
            LOGGER.info("words of attempt %d", attempt)
    assert "words of attempt 1" in text(tmp_path, 1)
    assert "words of attempt 1" not in text(tmp_path, 2)


def test_an_error_is_kept_with_its_traceback_and_goes_on_its_way(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), job_log(order(tmp_path)):
        1 / 0  # noqa: B018
    assert "ZeroDivisionError: division by zero" in text(tmp_path)
    assert "finished" not in text(tmp_path)


def test_who_was_asked_to_stop_has_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), job_log(order(tmp_path)):
        raise Interrupted("asked to stop")
    assert text(tmp_path).splitlines()[-1].endswith("INFO stopped: asked to stop")


def test_warnings_of_libraries_are_kept_and_their_chatter_is_not(tmp_path: Path) -> None:
    with job_log(order(tmp_path)), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("this will change", FutureWarning, stacklevel=1)
        logging.getLogger("library").info("chatter")
        logging.getLogger("library").warning("take care")
    assert "FutureWarning: this will change" in text(tmp_path)
    assert "WARNING take care" in text(tmp_path)
    assert "chatter" not in text(tmp_path)


def test_nothing_is_listened_to_afterwards(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    with job_log(order(tmp_path)):
        pass
    LOGGER.info("too late")
    assert "too late" not in text(tmp_path)
    assert logging.getLogger().handlers == before


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StoreError, match=r"The log .* cannot be written .*Make room or repair"),
        job_log(order(tmp_path / "file")),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_costs_the_log_and_not_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # otherwise it prints to stderr for each line
    path = log_path(tmp_path, SPEC.key, 1)
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    done = []
    with job_log(order(tmp_path)):
        LOGGER.info("training")
        done.append("trained")
    assert done == ["trained"]


def test_an_epoch_is_one_line_and_only_interpretable_networks_have_a_filter_loss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = EpochRecord(3, 0.5, 2.0, 0.25, 2.0, 0.9, 0.95, 0.01, 1.0, 3.2, 0.05, 0.6)
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        log_epoch(record, 9, 0.5)
        log_epoch(EpochRecord(3, 0.5, 0.0, 0.0, 2.0, 0.9, 0.95, 0.01, 1.0, 3.2, 0.05, 0.6), 9, 0.5)
    with_loss, without = caplog.messages
    assert with_loss.startswith("epoch 3/9: task loss 0.5000, filter loss 2.0000, lambda 0.25, accuracy 0.900")
    assert without.startswith(
        "epoch 3/9: task loss 0.5000, accuracy 0.900 in training and 0.950 on held-out images, chance 0.500"
    )
