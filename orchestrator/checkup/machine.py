"""Checks this machine: ORCH_HOME, its disk and memory, and the photographs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.checkup.result import RESOURCES, STORE, Checked, bad, ok, warning
from orchestrator.execution.resources import local_machine
from orchestrator.settings import Settings
from schemas.errors import DataError

LITTLE_GB, LEAST_GB = 10.0, 1.0
"""Free disk or memory below which there is a warning, and below which a sweep can hardly run."""
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "lustre", "gluster", "ceph", "beegfs", "fuse.sshfs", "gpfs")
"""Beginnings of the types of file systems on which SQLite's locks do not hold."""
MOUNTS = Path("/proc/mounts")


def check_machine(settings: Settings) -> Iterator[Checked]:
    """Check what a driver and its workers need of this machine. A probe file is written and deleted again.

    Args:
        settings: where ORCH_HOME and the photographs are.
    """
    yield from _check_home(settings)
    yield _judge_disk("free disk", settings.root)
    free = local_machine().free_gb
    text = f"{free:.1f} GB free"
    yield ok("memory", text) if free >= LEAST_GB else bad("memory", f"{text}. End other programs.", RESOURCES)
    if settings.data_root is not None:
        yield _check_data(settings.data_root.expanduser())


def _check_home(settings: Settings) -> Iterator[Checked]:
    root = settings.root
    place = existing(root)
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"orch doctor")
    except OSError as error:
        advice = "Repair its permissions, make room, or set ORCH_HOME to a folder that can be written."
        yield bad("ORCH_HOME", f"{root} cannot be written ({error.strerror or error}). {advice}")
        return
    kind = file_system_of(place, MOUNTS.read_text(encoding="utf-8") if MOUNTS.exists() else "")
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        text = f"{root} is on a network file system ({kind})"
        if settings.database is not None:
            yield bad("ORCH_HOME", f"{text}, where SQLite's locks do not hold. Set ORCH_HOME to a local folder.")
        else:
            yield warning("ORCH_HOME", f"{text}, which is slow for checkpoints. A local folder is better.")
        return
    yield ok("ORCH_HOME", f"{root} can be written" + ("" if root.exists() else "; a sweep will create it"))


def existing(path: Path) -> Path:
    """Return a folder, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def file_system_of(path: Path, mounts: str) -> str:
    """Return the type of the file system that holds a path; empty if unknown.

    Args:
        path: an absolute path.
        mounts: what `/proc/mounts` says.
    """
    kinds = {}
    for line in mounts.splitlines():
        _, where, kind, *_ = line.split()
        kinds[Path(where.replace("\\040", " "))] = kind  # the last one of a place hides the others
    real = Path(os.path.realpath(path))
    return next((kinds[folder] for folder in (real, *real.parents) if folder in kinds), "")


def _judge_disk(subject: str, path: Path) -> Checked:
    return judge_disk(subject, shutil.disk_usage(existing(path)).free / 2**30, str(path))


def judge_disk(subject: str, free_gb: float, path: str) -> Checked:
    """Return whether the free space of a disk suffices.

    Args:
        subject: whose disk it is.
        free_gb: free space in GB.
        path: a folder on that disk.
    """
    text = f"{free_gb:.1f} GB below {path}"
    if free_gb < LEAST_GB:
        return bad(subject, f"{text}. Make room: `orch gc` deletes what nothing reads.", STORE)
    return ok(subject, text) if free_gb >= LITTLE_GB else warning(subject, f"{text}, which checkpoints may fill")


def _check_data(root: Path) -> Checked:
    from workers.node_facts import data_sets_of

    found = data_sets_of(root)
    if found is None:
        text = f"{root} is not a folder that can be read. Correct ORCH_DATA_ROOT."
        return bad("photographs", text, DataError.exit_code)
    if not found:
        text = f"{root} holds no data set that orch knows. `orch data list` names the files that are looked for."
        return bad("photographs", text, DataError.exit_code)
    return ok("photographs", f"{', '.join(found)} in {root}")
