"""Reading a foreign file under a limit of memory, also where the kernel has none to give."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import pytest

from workers.training import confined


def limit(path: Path) -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def test_memory_is_limited_during_a_call_alone(tmp_path: Path) -> None:
    usual = limit(tmp_path)
    failure, during = pickle.loads(confined._answer(limit, tmp_path, confined.SPARE_BYTES))
    assert failure is None
    assert during not in (usual, resource.RLIM_INFINITY)
    assert limit(tmp_path) == usual


def test_a_file_is_read_without_a_limit_on_systems_that_do_not_count_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined, "MAPPED_PAGES", tmp_path / "none")
    failure, during = pickle.loads(confined._answer(limit, tmp_path, confined.SPARE_BYTES))
    assert (failure, during) == (None, limit(tmp_path))
