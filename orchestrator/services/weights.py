"""Lists, imports, verifies and finds the weights files under ORCH_HOME."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.ledger import store
from orchestrator.ledger.artifacts import fetch_checkpoint
from orchestrator.services.jobs import find_job
from orchestrator.settings import Settings
from schemas.base import did_you_mean
from schemas.errors import SpecError, WeightsError
from schemas.job import BackboneName, JobSpec
from schemas.lifecycle import JobState
from schemas.results import CheckpointPointer
from schemas.weights import ChannelOrder, InputScale, Provenance

if TYPE_CHECKING:
    from interp_model.weights import LayerFit

BUILT_IN = ("torchvision", "imagenet", "everything", "random")
"""Sources of weights that need no imported file."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights under ORCH_HOME."""

    name: str
    path: Path
    provenance: Provenance | None
    """Where the weights come from; None if orch did not import the file or cannot read it."""
    problem: str = ""
    """Why there is no provenance."""


@dataclass(frozen=True)
class Verification:
    """The layers of a weights file, compared with what a network needs."""

    path: Path
    backbone: str
    width: float
    layers: list[LayerFit]

    @property
    def misfits(self) -> list[LayerFit]:
        """Layers that do not fit."""
        return [layer for layer in self.layers if not layer.fits]


def list_weights(settings: Settings) -> list[WeightsFile]:
    """The files under `ORCH_HOME/weights`, by name."""
    from workers.weights.weight_file import ENDING, read_provenance

    found = []
    for path in sorted(settings.weights_dir.glob(f"*{ENDING}")):
        try:
            provenance = read_provenance(path)
            found.append(WeightsFile(path.stem, path, provenance, "" if provenance else "not imported by orch"))
        except WeightsError as error:
            found.append(WeightsFile(path.stem, path, None, str(error)))
    return found


def import_file(
    settings: Settings,
    source: Path,
    backbone: BackboneName,
    *,
    name: str | None,
    width: float,
    scale: InputScale | None = None,
    order: ChannelOrder | None = None,
) -> WeightsFile:
    """Verify a published file layer by layer, convert it, and store it under a name for `--weights`.

    Args:
        source: the published file.
        backbone: the network of the file.
        name: None takes the file's name.
        width: multiplier of the channel counts.
        scale: largest pixel value that the network takes. None: as the file says, else as its layer names imply.
        order: order of its channels, likewise.

    Raises:
        SpecError: the name is invalid, or other weights have it; or the stated input contradicts the file.
        WeightsError: the format is unknown, or the file is broken or does not fit the backbone.
    """
    from workers.training.weight_files import kind_of
    from workers.weights.importing import import_weights

    path = _expanded(source)
    kind_of(path)  # a folder or a missing file is no matter of its name
    chosen = _checked_name(name or path.name.split(".")[0])
    return _keep(settings, chosen, *import_weights(path, backbone, width, scale, order))


def import_job(settings: Settings, wanted: str, *, name: str | None) -> WeightsFile:
    """Store the weights of a finished job under a name for `--weights`.

    Args:
        wanted: the job's key, the start of it, or its title.
        name: None takes `job-KEY`.

    Raises:
        SpecError: the job is unknown or has not succeeded; the name is invalid, or other weights have it.
    """
    from workers.checkpoints.loading import find_checkpoint
    from workers.weights.importing import import_job as read

    record = find_job(settings, wanted)
    if record.state is not JobState.SUCCEEDED or record.result is None or record.result.checkpoint is None:
        raise SpecError(
            f"Job {record.title} ({record.key}) is {record.state}. Import the weights of a job that has succeeded."
        )

    def fetch(final: CheckpointPointer, folder: Path) -> Path | None:
        return fetch_checkpoint(settings, store.open_client(settings), record.run_id, final, folder)

    chosen = _checked_name(name or f"job-{record.key}")
    found = find_checkpoint(record.result.checkpoint, settings.checkpoint_dir, record.key, fetch)
    return _keep(settings, chosen, *read(JobSpec.model_validate_json(record.spec_json), found))


def _keep(settings: Settings, name: str, state: dict[str, Any], provenance: Provenance) -> WeightsFile:
    from workers.weights.weight_file import ENDING, write_weights

    path = settings.weights_dir / f"{name}{ENDING}"
    if path.exists() and not _is_same(path, provenance):
        raise SpecError(f"Other weights are called {name!r} already ({path}). Choose another `--name`.")
    write_weights(path, state, provenance)
    return WeightsFile(name, path, provenance)


def _is_same(path: Path, provenance: Provenance) -> bool:
    """Return whether a file holds what is about to be imported; a damaged file is replaced, as its message advises."""
    from workers.weights.weight_file import read_provenance

    try:
        before = read_provenance(path)
    except WeightsError:
        return path.is_file()
    ours = (provenance.sha256, provenance.backbone, provenance.width, str(provenance.input))
    return before is not None and (before.sha256, before.backbone, before.width, str(before.input)) == ours


def verify_weights(
    settings: Settings,
    word: str,
    backbone: BackboneName | None,
    width: float | None,
    scale: InputScale | None = None,
    order: ChannelOrder | None = None,
) -> Verification:
    """Compare each layer of a file with what a network needs.

    Args:
        word: a path, or the name of imported weights.
        backbone: None takes the backbone that an imported file states.
        width: None takes the width that an imported file states, else 1.
        scale: largest pixel value that the network takes. None: as the file says, else as its layer names imply.
        order: order of its channels, likewise.

    Raises:
        SpecError: the backbone is unknown, or the stated input contradicts the file.
        WeightsError: the file does not exist or cannot be read.
    """
    from workers.weights.importing import verify_weights as compare
    from workers.weights.weight_file import read_provenance

    path = find_file(settings, word)
    provenance = read_provenance(path)
    chosen = backbone or (provenance.backbone if provenance else None)
    if chosen is None:
        raise SpecError(f"{path} does not state its network. Name it, such as `--backbone vgg16`.")
    width = width or (provenance.width if provenance else 1.0)
    return Verification(path, chosen, width, compare(path, chosen, width, scale, order))


def raise_if_misfit(found: Verification) -> None:
    """Raise the error that a file with misfits ends with.

    Raises:
        WeightsError: some layers do not fit.
    """
    if not found.misfits:
        return
    count = len(found.misfits)
    raise WeightsError(
        f"{found.path} does not fit {found.backbone} at width {found.width:g}: {count} of {len(found.layers)} rows "
        f"above {'differs' if count == 1 else 'differ'}. Use weights of the same backbone and width."
    )


def find_file(settings: Settings, word: str) -> Path:
    """Find a weights file by its path or by the name of imported weights.

    Raises:
        WeightsError: neither exists.
    """
    from workers.training.weight_files import kind_of
    from workers.weights.weight_file import ENDING

    path = _expanded(Path(word))
    if os.path.isfile(path):
        return path.resolve()
    imported = settings.weights_dir / f"{word}{ENDING}"
    if _NAME.fullmatch(word) and imported.is_file():
        return imported
    if os.path.lexists(path):
        kind_of(path)  # says what it is instead of a file
    names = [*BUILT_IN, *(file.name for file in list_weights(settings))]
    raise WeightsError(
        f"There are no weights {word!r}: {os.path.abspath(path)} is no file, and no imported weights have that name. "
        f"{did_you_mean(word, names)} `orch weights list` lists them; `orch weights import` adds a file."
    )


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise WeightsError(f"{path} names the home folder of an unknown user. Give another path.") from error


def weights_field(settings: Settings, word: str | None) -> dict[str, Any]:
    """The fields of a job's spec that `--weights WORD` sets; none without a word.

    Raises:
        WeightsError: the weights do not exist.
    """
    if word is None:
        return {}
    if word in BUILT_IN:
        return {"weights": {"source": word}}
    return {"weights": {"source": "file", "path": str(find_file(settings, word))}}


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in BUILT_IN:
        raise SpecError(
            f"Weights cannot be called {name!r}. Use letters, digits, dots, dashes and underscores in `--name`; "
            f"{', '.join(BUILT_IN)} are reserved."
        )
    return name
