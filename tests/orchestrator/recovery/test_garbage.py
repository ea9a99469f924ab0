"""What `orch gc` deletes, and what it must keep."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from filelock import FileLock

from orchestrator.execution.ray_session import RAY_OWNER, RAY_PREFIX
from orchestrator.ledger.locks import Locks
from orchestrator.recovery.garbage import FEATURES_KEPT_SECONDS, Waste, delete, find_waste, size_of
from orchestrator.settings import Settings
from schemas.errors import StoreError
from workers.objects.folder import FolderObjects


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path / "home"})


def fill(folder: Path, size: int = 10) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(size))
    return folder


def waste(settings: Settings, ray: Path, known: Collection[str] = ()) -> list[Path]:
    found = find_waste(settings, lambda: known, 5, "here", lambda pid: pid == 1, ray)
    return [one.path for one in found]


def test_folders_of_known_jobs_are_kept(settings: Settings, tmp_path: Path) -> None:
    for root in (settings.checkpoint_dir, settings.log_dir):
        fill(root / "known")
        fill(root / "unknown")
        fill(root / ".fetched-x")
    assert waste(settings, tmp_path / "ray", {"known"}) == [
        settings.checkpoint_dir / "unknown",
        settings.log_dir / "unknown",
    ]


def test_a_job_that_begins_while_this_looks_is_not_taken_for_waste(settings: Settings, tmp_path: Path) -> None:
    fill(settings.checkpoint_dir / "old")

    def a_sweep_begins() -> Collection[str]:
        fill(settings.checkpoint_dir / "new")
        return {"old"}

    assert find_waste(settings, a_sweep_begins, 5, "here", lambda pid: True, tmp_path / "ray") == []


def test_prepared_images_of_other_recipes_go_and_those_of_this_one_stay(settings: Settings, tmp_path: Path) -> None:
    from workers.data.prepared.image_sets import FOLDER

    sets = settings.cache_dir / FOLDER
    for name in ("cat-64px-1a2b-r5", "cat-64px-1a2b-r4", "cat-64px-1a2b-r5-parts-r4", "named-by-hand", ".r3.partial"):
        fill(sets / name)
    assert waste(settings, tmp_path / "ray") == [sets / "cat-64px-1a2b-r4", sets / "cat-64px-1a2b-r5-parts-r4"]


def test_features_go_once_no_job_has_used_them_for_a_day(settings: Settings, tmp_path: Path) -> None:
    from workers.training.frozen_features import ENDING, FOLDER, PARTIAL

    folder = settings.cache_dir / FOLDER
    folder.mkdir(parents=True)
    now = time.time()
    for name, age in (("used-r5", 3600), ("unused-r5", FEATURES_KEPT_SECONDS + 60), ("of-another-r4", 3600)):
        (folder / f"{name}{ENDING}").write_bytes(bytes(10))
        os.utime(folder / f"{name}{ENDING}", (now - age, now - age))
    for name in ("killed", "alive"):
        (folder / f".{name}{ENDING}{PARTIAL}").write_bytes(bytes(10))
    with FileLock(folder / f".alive{ENDING}.lock"):  # of the process that writes it
        found = find_waste(settings, lambda: (), 5, "here", lambda pid: pid == 1, tmp_path / "ray")
    names = [f".killed{ENDING}{PARTIAL}", f"of-another-r4{ENDING}", f"unused-r5{ENDING}"]
    assert [(one.path, one.size) for one in found] == [(folder / name, 10) for name in names]
    delete(found, Locks(settings.lock_dir), lambda key: False)
    left = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
    assert left == {f"used-r5{ENDING}", f".alive{ENDING}{PARTIAL}"}


@pytest.mark.parametrize(
    ("owner", "is_waste"), [("here 2", True), ("here 1", False), ("elsewhere 2", False), ("here x", False), ("", False)]
)
def test_only_a_ray_whose_driver_is_known_to_be_dead_goes(
    settings: Settings, tmp_path: Path, owner: str, is_waste: bool
) -> None:
    folder = fill(tmp_path / "ray" / f"{RAY_PREFIX}abc")
    (folder / RAY_OWNER).write_text(owner)
    assert waste(settings, tmp_path / "ray") == ([folder] if is_waste else [])


def test_a_ray_that_does_not_say_whose_it_is_stays(settings: Settings, tmp_path: Path) -> None:
    fill(tmp_path / "ray" / f"{RAY_PREFIX}abc")
    assert waste(settings, tmp_path / "ray") == []


def test_a_size_counts_what_would_be_freed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", 1000)
    (fill(tmp_path / "b", 10**6) / "x").unlink(missing_ok=True)
    (folder / "link").symlink_to(tmp_path / "b" / "file")
    assert size_of(folder) == 1000


def test_what_cannot_be_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        if path.name == "b":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(StoreError, match=r"b cannot be deleted \(Permission denied\).*`orch gc` again"):
        delete(
            [Waste("x", tmp_path / name, 1) for name in ("a", "b", "c")], Locks(tmp_path / "locks"), lambda key: False
        )


def test_the_folder_of_a_job_that_began_meanwhile_is_kept(tmp_path: Path) -> None:
    waste = [Waste("x", fill(tmp_path / name), 10, name) for name in ("driven", "planned", "unknown")]
    driver, locks = Locks(tmp_path / "locks"), Locks(tmp_path / "locks")
    assert driver.take_job("driven")
    assert delete(waste, locks, {"planned"}.__contains__) == [waste[2]]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "locks") == ["driven", "planned"]
    driver.release_job("driven")
    assert driver.take_job("planned"), "released after it was kept"


def test_a_folder_that_another_gc_has_deleted_is_passed_over(tmp_path: Path) -> None:
    gone, there = Waste("x", tmp_path / "gone", 1), Waste("x", fill(tmp_path / "there"), 10)
    assert size_of(gone.path) == 0
    assert delete([gone, there], Locks(tmp_path / "locks"), lambda key: False) == [there]


def test_shared_checkpoints_of_no_known_job_are_waste_and_those_of_others_stay(
    settings: Settings, tmp_path: Path
) -> None:
    objects = FolderObjects(tmp_path / "objects")
    kept = ["checkpoints/known/attempt-1/newest.json", "owner.json", "data/unknown/attempt-1/shard"]
    for key in (*kept, "checkpoints/unknown/attempt-1/newest.json", "checkpoints/unknown/attempt-2/result.json"):
        objects.write(key, b"content")
    known = {"known"}
    found = find_waste(settings, lambda: known, 5, "here", lambda pid: True, tmp_path / "ray", objects)
    assert [(one.job, one.size) for one in found] == [("unknown", 14)]
    assert delete(found, Locks(tmp_path / "locks"), {"unknown"}.__contains__) == []  # a sweep has begun
    assert delete(found, Locks(tmp_path / "locks"), known.__contains__) == found
    assert sorted(one.key for one in objects.list("")) == sorted(kept)
