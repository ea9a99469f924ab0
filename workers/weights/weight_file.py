"""Our own weights files: convolutions with our layer names, for our input, and their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from schemas.errors import StoreError, WeightsError
from schemas.weights import Provenance
from workers.files import write_atomically
from workers.training.weight_files import kind_of

if TYPE_CHECKING:
    from torch import Tensor  # planning reads the provenance and must not import torch

ENDING = ".safetensors"

_KEY = "orch"
"""Key of the provenance in a safetensors file's metadata."""


def write_weights(path: Path, state: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Write a weights file; readers see a whole file or none.

    Args:
        path: the file to write.
        state: the convolutions.
        provenance: where they come from.

    Raises:
        StoreError: the folder cannot be written.
    """
    from safetensors.torch import save

    content = save(
        {name: value.contiguous() for name, value in state.items()},
        {"format": "pt", _KEY: provenance.model_dump_json()},
    )
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(
            f"The weights cannot be written to {path} ({error.strerror}). Make room there, or set ORCH_HOME elsewhere."
        ) from error


def read_provenance(path: Path) -> Provenance | None:
    """Read the provenance of an imported file; None for a file that was not imported.

    Raises:
        WeightsError: a `.safetensors` file is missing, truncated or not in that format.
    """
    if path.suffix != ENDING and not _is_safetensors(path):
        return None
    kind_of(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
        return Provenance.model_validate_json(text) if text else None
    except (OSError, SafetensorError, ValidationError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}). It is damaged: import it again with "
            "`orch weights import`, or restore it."
        ) from error


def _is_safetensors(path: Path) -> bool:
    try:
        return kind_of(path) == "safetensors"
    except WeightsError:
        return False
