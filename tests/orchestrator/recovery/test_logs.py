"""Reading and following the log of a job, on whichever machine it ran."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.ledger.records import JobRecord
from orchestrator.recovery import logs
from orchestrator.recovery.logs import LogSource, attempts_on_disk, follow, read_log
from orchestrator.settings import Settings
from schemas.errors import SpecError, StoreUnreachable
from schemas.lifecycle import JobState
from tests.support.doubles import plan_of, record_of
from workers.tracking.job_log import log_path

if TYPE_CHECKING:
    from tests.conftest import Store

SPEC = plan_of("smoke", categories=("cat",), backbones=("alexnet",)).jobs[0]
KEY = SPEC.key


class Bench:
    def __init__(self, home: Path, store: Store, run_id: str) -> None:
        self.settings = Settings.model_validate({"home": home, "tracking_uri": store.uri})
        self.client = store.client
        self.run_id = run_id

    def job(self, attempt: int) -> JobRecord:
        return record_of(SPEC, JobState.RUNNING, attempt=attempt, run_id=self.run_id)

    def write(self, attempt: int, text: str | bytes) -> None:
        path = log_path(self.settings.log_dir, KEY, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def hand_in(self, attempt: int, text: str) -> None:
        self.client.log_text(self.run_id, text, f"logs/attempt-{attempt}.log")

    def follow(self, *happens: Callable[[], None], attempt: int | None = None, **more: Any) -> str:
        """Text that is read while these events happen, one per wait; then the job is over."""
        left = list(happens)

        def sleep(seconds: float) -> None:
            left.pop(0)()

        source = LogSource(self.settings, self.job(attempt or 1))
        return "".join(follow(source, attempt, lambda: not left, sleep, **more))


@pytest.fixture
def bench(tmp_path: Path, store: Store, new_run: Callable[[], str]) -> Bench:
    return Bench(tmp_path, store, new_run())


def test_the_last_attempt_is_read_unless_another_is_named(bench: Bench) -> None:
    for attempt in (1, 2, 10):
        bench.write(attempt, f"attempt {attempt}\n")
    assert attempts_on_disk(bench.settings, KEY) == [1, 2, 10]
    log = read_log(bench.settings, bench.job(10))
    assert (log.attempt, log.attempts, log.text) == (10, (1, 2, 10), "attempt 10\n")
    assert read_log(bench.settings, bench.job(10), 2).text == "attempt 2\n"


def test_an_attempt_that_ran_on_another_machine_is_read_from_its_run(bench: Bench) -> None:
    bench.write(1, "here\n")
    bench.hand_in(1, "here\n")
    bench.hand_in(2, "elsewhere\n")
    log = read_log(bench.settings, bench.job(2))
    assert (log.attempt, log.attempts, log.text) == (2, (1, 2), "elsewhere\n")
    assert bench.run_id in log.path
    assert read_log(bench.settings, bench.job(2), 1).path.endswith("attempt-1.log")


def test_a_log_that_does_not_exist_is_refused_with_those_that_do(bench: Bench) -> None:
    with pytest.raises(SpecError, match=f"has no log.*orch show {KEY}"):
        read_log(bench.settings, bench.job(1))
    bench.write(1, "x")
    with pytest.raises(SpecError, match=r"no log of attempt 3. Attempts with a log: 1\."):
        read_log(bench.settings, bench.job(1), 3)


def test_the_end_of_a_log_is_its_last_lines(bench: Bench) -> None:
    bench.write(1, "".join(f"line {n}\n" for n in range(100)))
    assert read_log(bench.settings, bench.job(1)).last(2) == "line 98\nline 99"


def test_following_shows_every_line_once_up_to_the_last(bench: Bench) -> None:
    bench.write(1, "one\n")
    seen = bench.follow(lambda: bench.write(1, "two\n"), lambda: None, lambda: bench.write(1, "three\n"))
    assert seen == "one\ntwo\nthree\n"


def test_following_waits_for_a_job_that_has_not_begun(bench: Bench) -> None:
    assert bench.follow(lambda: None, lambda: bench.write(1, "begun\n")) == "begun\n"


def test_following_goes_on_to_the_next_attempt_and_misses_nothing_of_the_last(bench: Bench) -> None:
    bench.write(1, "first\n")

    def dies_and_is_tried_again() -> None:
        bench.write(1, "its last words\n")
        bench.write(2, "second\n")

    assert bench.follow(dies_and_is_tried_again) == "first\nits last words\nsecond\n"


def test_following_one_attempt_ends_with_it(bench: Bench) -> None:
    bench.write(1, "first\n")
    seen = bench.follow(lambda: bench.write(2, "second\n"), lambda: pytest.fail("still following"), attempt=1)
    assert seen == "first\n"


def test_a_letter_that_is_half_written_is_not_garbled(bench: Bench) -> None:
    bench.write(1, "é".encode()[:1])
    assert bench.follow(lambda: bench.write(1, "é".encode()[1:] + b"\n")) == "é\n"


def test_a_job_on_another_machine_is_followed_through_the_copies_in_its_run(bench: Bench) -> None:
    bench.hand_in(1, "one\n")
    seen = bench.follow(
        lambda: bench.hand_in(1, "one\ntwo\n"),
        lambda: None,
        lambda: bench.hand_in(2, "the next attempt\n"),
    )
    assert seen == "one\ntwo\nthe next attempt\n"


def test_a_file_of_this_machine_is_followed_without_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.store, "open_client", lambda settings: pytest.fail("the store was asked"))
    bench.write(1, "one\n")
    assert bench.follow(lambda: bench.write(1, "two\n")) == "one\ntwo\n"


def test_a_store_that_is_away_delays_following_and_is_told_of_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told = logs.store.open_client, list[str]()

    def away(settings: Settings) -> None:
        raise StoreUnreachable("The store is away.")

    monkeypatch.setattr(logs.store, "open_client", away)
    bench.hand_in(1, "one\n")
    back = partial(monkeypatch.setattr, logs.store, "open_client", real)
    assert bench.follow(lambda: None, back, lambda: None, say=told.append) == "one\n"
    assert told == ["The store is away. Trying again until Ctrl-C."]


@pytest.mark.parametrize("here", [True, False])
def test_following_can_begin_with_the_last_lines(bench: Bench, here: bool) -> None:
    lines = [f"line {n}\n" for n in range(9)]
    bench.write(1, "".join(lines)) if here else bench.hand_in(1, "".join(lines))

    def grow() -> None:
        bench.write(1, "new\n") if here else bench.hand_in(1, "".join([*lines, "new\n"]))

    assert bench.follow(grow, last=2) == "line 7\nline 8\nnew\n"
