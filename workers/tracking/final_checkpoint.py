"""Where the files of a job's run hold its final checkpoint, and how it gets there and back without a needless copy.

The run has the only lasting copy. If its files lie in a folder of this machine, as in the embedded store, the file of
the last attempt gets a second name there (a hard link), and readers open it in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from schemas.results import CheckpointPointer
from workers.files import flush_folder, link_or_copy

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "checkpoint"
"""Folder of the final checkpoint among the files of a run."""
FORMER_NAME = "final.pt"
"""Name of the file in runs of earlier versions, which kept a second copy among the checkpoints."""


def name_of(checkpoint: CheckpointPointer) -> str:
    """Return the name of a final checkpoint's file.

    With the digest in it, an attempt that was replaced while it uploaded its own cannot replace its successor's.
    """
    return f"final-{checkpoint.sha256[:8]}.pt"


def folder_of(artifact_uri: str) -> Path | None:
    """Return the folder of a run's files; None if they do not lie in a folder of this machine."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    return None if parts.scheme else Path(artifact_uri)


def find_name(checkpoint: CheckpointPointer, names: Iterable[str]) -> str | None:
    """Return the path of a final checkpoint among the paths of a run's files; None if it is not there."""
    kept = set(names)
    return next((path for path in _paths(checkpoint) if path in kept), None)


def find_local(artifact_uri: str, checkpoint: CheckpointPointer) -> Path | None:
    """Return the file of a final checkpoint, whole or not, if a folder of this machine has it."""
    folder = folder_of(artifact_uri)
    files = (folder / path for path in _paths(checkpoint)) if folder is not None else ()
    return next((file for file in files if file.is_file()), None)


def fetch(
    client: MlflowClient, run_id: str, artifact_uri: str, checkpoint: CheckpointPointer, folder: Path
) -> Path | None:
    """Return a run's final checkpoint, whole or not: in place if this machine has it, else downloaded into a folder.

    Args:
        client: a client of the store.
        run_id: the run.
        artifact_uri: where the files of the run are now.
        checkpoint: the checkpoint as the job recorded it.
        folder: where to download it to.

    Returns:
        The file; None if the run does not have it.
    """
    if (here := find_local(artifact_uri, checkpoint)) is not None:
        return here
    name = find_name(checkpoint, (file.path for file in client.list_artifacts(run_id, FOLDER)))
    return None if name is None else Path(client.download_artifacts(run_id, name, str(folder)))


def keep(client: MlflowClient, run_id: str, artifact_uri: str, checkpoint: CheckpointPointer) -> CheckpointPointer:
    """Keep a final checkpoint of this machine in a run, whole or not at all.

    Args:
        client: a client of the store.
        run_id: the run.
        artifact_uri: where the files of the run are.
        checkpoint: a file that is never changed in place.

    Returns:
        Where the run's file is: its path, or its URI behind a server.
    """
    folder = folder_of(artifact_uri)
    if folder is None:
        _upload(client, run_id, checkpoint)
        return checkpoint.model_copy(update={"path": f"{artifact_uri}/{FOLDER}/{name_of(checkpoint)}"})
    target = (folder / FOLDER / name_of(checkpoint)).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(Path(checkpoint.path), target)
    flush_folder(folder)
    return checkpoint.model_copy(update={"path": str(target)})


def delete_others(artifact_uri: str, checkpoint: CheckpointPointer) -> None:
    """Delete the final checkpoints of attempts whose results were lost, if a folder of this machine has them."""
    folder = folder_of(artifact_uri)
    for other in (folder / FOLDER).glob("final*.pt") if folder is not None else ():
        if other.name != name_of(checkpoint):
            with suppress(OSError):
                other.unlink()


def _upload(client: Any, run_id: str, checkpoint: CheckpointPointer) -> None:
    with TemporaryDirectory(prefix="orch-") as folder:
        named = Path(folder) / name_of(checkpoint)
        os.symlink(checkpoint.path, named)  # MLflow follows the link
        client.log_artifact(run_id, str(named), FOLDER)


def _paths(checkpoint: CheckpointPointer) -> tuple[str, str]:
    return f"{FOLDER}/{name_of(checkpoint)}", f"{FOLDER}/{FORMER_NAME}"
