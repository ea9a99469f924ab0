"""A job's checkpoints in the object store: which ones count, and how a replaced attempt is kept from changing them.

Every attempt has objects of its own, `checkpoints/<job key>/attempt-<n>/`, and a pointer among them that lists the
published checkpoints. The pointer of the latest attempt counts. A new attempt first seals the pointers of earlier ones
by a conditional write: a replaced attempt that wakes up can then publish no more, and deletes nothing that counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from schemas.base import Stored
from schemas.errors import ObjectConflict, ObjectDamaged, ObjectMissing, StoreUnreachable
from schemas.results import CheckpointPointer, JobResult
from workers.checkpoints import fencing
from workers.checkpoints.ending import parse_end
from workers.checkpoints.layout import POINTER, RESULT
from workers.checkpoints.published import KEPT
from workers.objects.base import ABSENT, Absent, ObjectStore, OnBytes

FOLDER = "checkpoints"
"""Prefix of all checkpoints in an object store."""
AFRESH = "afresh"
"""Object of the last attempt whose checkpoints are not to be used."""
SEAL_TRIES = 10
"""Tries to seal the pointer of an attempt that publishes at the same time."""

_KEY = re.compile(rf"{FOLDER}/([^/]+)/attempt-(\d+)/([^/]+)")


class SharedPointer(Stored):
    """What an attempt has published in the object store."""

    attempt: int
    """The attempt that writes it."""
    sealed_by: int | None = None
    """The attempt that has taken over; the pointer changes no more."""
    checkpoints: tuple[CheckpointPointer, ...] = ()
    """Published checkpoints, newest first; their paths are keys of objects."""


@dataclass(frozen=True)
class SharedObject:
    """An object that belongs to an attempt of a job."""

    key: str
    size: int
    job_key: str
    attempt: int
    name: str


def shared_objects(objects: ObjectStore, job_key: str = "") -> Iterator[SharedObject]:
    """Yield the objects of one job's attempts, or of all jobs."""
    for found in objects.list(f"{FOLDER}/{job_key}/" if job_key else f"{FOLDER}/"):
        if match := _KEY.fullmatch(found.key):
            yield SharedObject(found.key, found.size, match[1], int(match[2]), match[3])


def read_shared_pointer(objects: ObjectStore, job_key: str, attempt: int) -> SharedPointer | None:
    """Return what an attempt has published; None if it has published nothing, or its pointer is damaged."""
    found = objects.read(_key(job_key, attempt, POINTER))
    return _parse(found[0]) if found else None


def write_shared_end(objects: ObjectStore, result: JobResult) -> None:
    """Write how an attempt ended, for a driver that does not hear of it."""
    objects.write(_key(result.job_key, result.attempt, RESULT), result.model_dump_json().encode())


def read_shared_end(objects: ObjectStore, job_key: str, attempt: int) -> JobResult | None:
    """Return how an attempt ended; None if the object store does not say."""
    found = objects.read(_key(job_key, attempt, RESULT))
    return parse_end(found[0], job_key, attempt) if found else None


def delete_shared(objects: ObjectStore, job_key: str) -> None:
    """Delete everything that the object store has of a job."""
    objects.delete([one.key for one in shared_objects(objects, job_key)])


def begin_afresh(objects: ObjectStore, job_key: str, attempt: int) -> None:
    """Delete a job's checkpoints, also those on disks of other machines as soon as these take the job up.

    Args:
        attempt: the last attempt whose checkpoints are not to be used.
    """
    objects.write(_key(job_key, attempt, AFRESH), b"")
    found = shared_objects(objects, job_key)
    objects.delete([one.key for one in found if (one.name, one.attempt) != (AFRESH, attempt)])


def _key(job_key: str, attempt: int, name: str) -> str:
    return f"{FOLDER}/{job_key}/attempt-{attempt}/{name}"


def _last_unused(found: Iterable[SharedObject]) -> int:
    return max((one.attempt for one in found if one.name == AFRESH), default=0)


def _parse(content: bytes) -> SharedPointer | None:
    try:
        return SharedPointer.model_validate_json(content)
    except ValueError:
        return None


@dataclass
class SharedCheckpoints:
    """The checkpoints of one attempt in the object store. One thread at a time may use it."""

    objects: ObjectStore
    job_key: str
    attempt: int
    _version: str | Absent = field(default=ABSENT, init=False)
    """Version of this attempt's pointer, as it was last written."""
    _published: tuple[CheckpointPointer, ...] = field(default=(), init=False)

    def take_over(self) -> tuple[CheckpointPointer, ...]:
        """Make this the attempt whose checkpoints count.

        Returns:
            The checkpoints that earlier attempts have published, newest first, unless they are not to be used.

        Raises:
            Superseded: a later attempt has the job.
            StoreUnreachable: the store does not answer.
        """
        found = list(shared_objects(self.objects, self.job_key))
        attempts, unused = {one.attempt for one in found if one.name == POINTER}, _last_unused(found)
        self._check_latest(attempts)
        for attempt in sorted(attempts - {self.attempt}):
            published = self._seal(attempt)
            if attempt > unused:
                self._published = published or self._published
        if self.attempt in attempts:  # an earlier process of this attempt, which has ended
            self._adopt()
        self._write_pointer(self._published)
        return self._published

    def last_unused(self) -> int:
        """Return the number of the last attempt whose checkpoints are not to be used; 0 if there is none."""
        return _last_unused(shared_objects(self.objects, self.job_key))

    def ends(self) -> Iterator[JobResult]:
        """Yield how earlier attempts ended, the latest first, as far as the store says."""
        found = {one.attempt for one in shared_objects(self.objects, self.job_key) if one.name == RESULT}
        for attempt in sorted(found, reverse=True):
            end = read_shared_end(self.objects, self.job_key, attempt)
            if end is not None and attempt < self.attempt:
                yield end

    def fetch(self, checkpoint: CheckpointPointer, folder: Path) -> CheckpointPointer | str:
        """Download a published checkpoint into a folder.

        Returns:
            Where it is now, or a sentence that says what is wrong with it.

        Raises:
            StoreUnreachable: the store does not answer.
            OSError: the file cannot be written.
        """
        target = (folder / Path(checkpoint.path).name).absolute()
        try:
            self.objects.get(checkpoint.path, target, checkpoint.sha256)
        except (ObjectMissing, ObjectDamaged) as error:
            return f"{error} The checkpoint before it is used, if there is one."
        return checkpoint.model_copy(update={"path": str(target)})

    def publish(self, checkpoint: CheckpointPointer, on_bytes: OnBytes | None = None) -> None:
        """Upload a checkpoint, publish it by the pointer, and then delete what it supersedes.

        Args:
            checkpoint: a file of this machine.
            on_bytes: called during the upload.

        Raises:
            Superseded: a later attempt has the job.
            StoreUnreachable: the store does not answer.
            ObjectDamaged: the file is damaged.
            OSError: the file cannot be read.
        """
        if self._version is ABSENT:  # the store was away when this attempt began
            self._check_latest({one.attempt for one in shared_objects(self.objects, self.job_key)})
        key = _key(self.job_key, self.attempt, Path(checkpoint.path).name)
        self.objects.put(key, Path(checkpoint.path), checkpoint.sha256, on_bytes)
        before = [one for one in self._published if one.path != key]
        self._write_pointer((checkpoint.model_copy(update={"path": key}), *before)[:KEPT])
        self._delete_superseded()

    def delete_checkpoints(self) -> None:
        """Delete all checkpoints of the job: its run has the final one. How its attempts ended is kept.

        Raises:
            Superseded: a later attempt has the job.
            StoreUnreachable: the store does not answer.
        """
        found = list(shared_objects(self.objects, self.job_key))
        self._check_latest({one.attempt for one in found})
        self.objects.delete([one.key for one in found if one.name not in (RESULT, AFRESH)])

    def _check_latest(self, attempts: set[int]) -> None:
        latest = max(attempts, default=0)
        if latest > self.attempt:
            raise fencing.superseded(self.attempt, f"attempt {latest} has taken over its shared checkpoints")

    def _seal(self, attempt: int) -> tuple[CheckpointPointer, ...]:
        """Forbid an earlier attempt to publish; return what it has published."""
        key = _key(self.job_key, attempt, POINTER)
        for _ in range(SEAL_TRIES):
            found = self.objects.read(key)
            if found is None:
                return ()
            pointer = _parse(found[0]) or SharedPointer(attempt=attempt)
            if pointer.sealed_by is not None and pointer.sealed_by >= self.attempt:
                return pointer.checkpoints
            sealed = pointer.model_copy(update={"sealed_by": self.attempt})
            try:
                self.objects.write(key, sealed.model_dump_json().encode(), found[1])
                return pointer.checkpoints
            except ObjectConflict:
                continue  # it has just published
        raise StoreUnreachable(
            f"The pointer {key} of {self.objects.where} changes all the time, so attempt {self.attempt} cannot take "
            "over. See that no other process works on the job."
        )

    def _adopt(self) -> None:
        found = self.objects.read(_key(self.job_key, self.attempt, POINTER))
        if found is not None:
            pointer = _parse(found[0]) or SharedPointer(attempt=self.attempt)
            self._published, self._version = pointer.checkpoints or self._published, found[1]

    def _write_pointer(self, checkpoints: tuple[CheckpointPointer, ...]) -> None:
        key = _key(self.job_key, self.attempt, POINTER)
        content = SharedPointer(attempt=self.attempt, checkpoints=checkpoints).model_dump_json().encode()
        try:
            self._version = self.objects.write(key, content, self._version)
        except ObjectConflict:
            found = self.objects.read(key)
            pointer = _parse(found[0]) if found else None
            if found is None or pointer is None or pointer.sealed_by is not None:
                why = "its pointer in the object store was sealed or deleted"
                raise fencing.superseded(self.attempt, why) from None
            # An earlier write of this attempt arrived, although the store did not answer.
            self._version = self.objects.write(key, content, found[1])
        self._published = checkpoints

    def _delete_superseded(self) -> None:
        kept = {one.path for one in self._published} | {_key(self.job_key, self.attempt, POINTER)}
        found = shared_objects(self.objects, self.job_key)
        self.objects.delete(
            [one.key for one in found if one.key not in kept and one.name != AFRESH and one.attempt <= self.attempt]
        )
