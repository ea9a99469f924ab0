"""Which network a job builds: backbone, variant and size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen

BackboneName = Literal["alexnet", "vgg_m", "vgg_s", "vgg16", "alexnet_2012"]
"""Names of the backbones. `alexnet` is torchvision's; `alexnet_2012` is the original one with grouped convolutions and
local response normalisation, which the paper used."""
Variant = Literal["ordinary", "interpretable"]
"""Whether the top convolutions are interpretable layers (Sec. 3)."""


class ModelSpec(Frozen):
    """Architecture of a job's network."""

    backbone: BackboneName
    """Name of the backbone."""
    variant: Variant
    """`interpretable` masks the top convolution and adds a second masked one; `ordinary` is the baseline."""
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Multiplier of every channel count; 1 is the published network."""
    input_size: Annotated[int, Field(ge=48, le=512)] = 224
    """Side of the square input, pixels."""
    fc_width: Annotated[int, Field(ge=8)] = 4096
    """Number of units of fc6 and of fc7."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout probability after fc6 and fc7."""
    mask: bool = True
    """Whether interpretable layers multiply each map by the template at its peak (Sec. 3). False is an ablation."""
