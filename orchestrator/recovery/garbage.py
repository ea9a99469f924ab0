"""Decides what `orch gc` deletes: files that no job of the store and no current recipe can read again."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.execution.ray_session import RAY_OWNER, RAY_PARENT, RAY_PREFIX
from orchestrator.ledger.locks import Locks
from orchestrator.settings import Settings
from schemas.errors import StoreError
from workers.checkpoints.shared import FOLDER, delete_shared, shared_objects
from workers.objects.base import ObjectStore

FEATURES_KEPT_SECONDS = 24 * 3600
"""How long features that no job uses are kept. A job that needs them later computes them again."""


@dataclass(frozen=True)
class Waste:
    """A folder or file that can be deleted."""

    what: str
    """Kind of folder or file, for people."""
    path: Path | str
    """The folder or file; its URI in an object store."""
    size: int
    """Size in bytes."""
    job: str = ""
    """Key of the job whose folder or file it is."""

    def remove(self) -> None:
        """Delete the folder or the file.

        Raises:
            OSError: it cannot be deleted.
        """
        if os.path.isfile(self.path):
            os.unlink(self.path)
        else:
            shutil.rmtree(self.path)


@dataclass(frozen=True)
class SharedWaste(Waste):
    """What an object store has of a job."""

    objects: ObjectStore | None = None

    def remove(self) -> None:
        """Delete the objects.

        Raises:
            StoreError: the object store refuses, or does not answer.
        """
        if self.objects is not None:
            delete_shared(self.objects, self.job)


def find_waste(
    settings: Settings, known_jobs: Callable[[], Collection[str]], recipe: int, host: str,
    pid_exists: Callable[[int], bool], ray_parent: Path = Path(RAY_PARENT), objects: ObjectStore | None = None,
) -> list[Waste]:  # fmt: skip
    """Find the folders and files that can be deleted.

    Args:
        settings: where checkpoints, logs and prepared images are.
        known_jobs: returns the keys of all jobs that the store has or plans. Called after the folders are listed, so
            that those of a sweep that begins meanwhile are kept.
        recipe: version of the code that prepares images.
        host: name of this machine.
        pid_exists: returns whether a process of this machine exists.
        ray_parent: where drivers create the folders of their Ray sessions.
        objects: the object store of the tracking store, if there is one.

    Returns:
        Checkpoints and logs of unknown jobs, prepared images of other versions, features of frozen layers that no job
        has used for a day, and sessions of dead drivers.
    """
    of_jobs = [
        *(("checkpoints of no known job", path) for path in _folders(settings.checkpoint_dir)),
        *(("logs of no known job", path) for path in _folders(settings.log_dir)),
    ]
    shared: dict[str, int] = {}
    for one in shared_objects(objects) if objects is not None else ():
        shared[one.job_key] = shared.get(one.job_key, 0) + one.size
    known = known_jobs()
    found = [
        *((what, path, path.name) for what, path in of_jobs if path.name not in known),
        *(("prepared images of another version", path, "") for path in _stale_sets(settings.cache_dir, recipe)),
        *(("unused features of frozen layers", path, "") for path in _unused_features(settings.cache_dir, recipe)),
        *(("a dead driver's Ray", path, "") for path in _dead_ray_sessions(ray_parent, host, pid_exists)),
    ]
    return [
        *(Waste(what, path, size_of(path), job) for what, path, job in found),
        *(
            SharedWaste(
                "shared checkpoints of no known job", f"{settings.object_store}/{FOLDER}/{job}", size, job, objects
            )
            for job, size in sorted(shared.items())
            if job not in known
        ),
    ]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def _stale_sets(cache_dir: Path, recipe: int) -> Iterator[Path]:
    """Image sets have the versions that made them in their names: `voc_part-cat-64px-1a2b-r5-parts-r5`."""
    from workers.data.prepared.image_sets import FOLDER

    for path in sorted((cache_dir / FOLDER).glob("[!.]*")):
        versions = re.findall(r"-r(\d+)(?=-|$)", path.name)
        if path.is_dir() and versions and any(int(version) != recipe for version in versions):
            yield path


def _unused_features(cache_dir: Path, recipe: int) -> Iterator[Path]:
    """Features that no job has used for a day or that another version made, and what killed processes left of some."""
    from workers.training.frozen_features import ENDING, abandoned, kept_features

    yield from sorted(abandoned(cache_dir))
    for one in sorted(kept_features(cache_dir), key=lambda one: one.path):
        is_current = one.path.name.endswith(f"-r{recipe}{ENDING}")
        if not is_current or time.time() - one.used_at > FEATURES_KEPT_SECONDS:
            yield one.path


def _dead_ray_sessions(parent: Path, host: str, pid_exists: Callable[[int], bool]) -> Iterator[Path]:
    """Ray sessions that name their driver, a process of this machine that has ended."""
    for path in sorted(parent.glob(f"{RAY_PREFIX}*")):
        try:
            owner, number = (path / RAY_OWNER).read_text().split()
            pid = int(number)
        except (OSError, ValueError):
            continue
        if owner == host and not pid_exists(pid):
            yield path


def size_of(path: Path) -> int:
    """Return the size of a file, or the total size of the files below a folder, in bytes.

    Links are not followed, vanished files count 0.
    """
    size = 0
    if path.is_file():
        with suppress(OSError):
            return path.stat().st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(folder, name))
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


def delete(waste: Collection[Waste], locks: Locks, is_used: Callable[[str], bool]) -> list[Waste]:
    """Delete folders and files, those of jobs under the job's lock and only if it still does not use them.

    Args:
        waste: the folders and files, deleted in this order.
        locks: this machine's locks.
        is_used: returns whether a job, given by its key, uses by now what was found.

    Returns:
        What was deleted.

    Raises:
        StoreError: a folder cannot be deleted. The ones before it are deleted.
    """
    deleted = []
    for one in waste:
        if one.job and not locks.take_job(one.job):
            continue  # a driver has just begun the job
        try:
            if not (one.job and is_used(one.job)):
                one.remove()
                deleted.append(one)
        except FileNotFoundError:
            continue  # another `orch gc` was faster
        except OSError as error:
            raise StoreError(
                f"{one.path} cannot be deleted ({error.strerror or error}). Correct its permissions, then run "
                "`orch gc` again."
            ) from error
        finally:
            if one.job:
                locks.release_job(one.job)
    return deleted
