"""Our own weights files: convolutions under our names, for our input, with their provenance inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from schemas.errors import StoreError, WeightsError
from schemas.weights import Provenance
from workers.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor  # planning asks for the provenance, and must not wait for torch

ENDING = ".safetensors"

_KEY = "orch"
"""Of the provenance among a safetensors file's metadata."""


def write_weights(path: Path, state: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Write to a new name, flush, rename: whoever reads sees a whole file or none.

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
            f"The weights cannot be written to {path} ({error.strerror}). Free space there, or set ORCH_HOME elsewhere."
        ) from error


def read_provenance(path: Path) -> Provenance | None:
    """What an imported file says of itself; None for a file that was not imported.

    Raises:
        WeightsError: the file ends in `.safetensors` and is none, or is cut short.
    """
    if path.suffix != ENDING:
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
        return Provenance.model_validate_json(text) if text else None
    except (OSError, SafetensorError, ValidationError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}). It is cut short or broken: import it again with "
            "`orch weights import`, or restore it."
        ) from error
