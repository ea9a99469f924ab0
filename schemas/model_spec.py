"""Which network a job builds: backbone, variant and size."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field

from schemas.base import FieldError, Frozen, Positive, nearest

BackboneName = Literal["alexnet", "vgg_m", "vgg_s", "vgg16", "alexnet_2012"]
"""Names of the backbones of orch's own table. `alexnet` is torchvision's; `alexnet_2012` is the original one with
grouped convolutions and local response normalisation, which the paper used."""
TABLE: tuple[BackboneName, ...] = get_args(BackboneName)
"""All names of the table."""
Variant = Literal["ordinary", "interpretable"]
"""Whether the top convolutions are interpretable layers (Sec. 3)."""

Source = Literal["torchvision", "timm", "lite"]
"""Libraries of networks. `lite` has EfficientNet-Lite."""


class ForeignName(NamedTuple):
    """A network of another library, cut after one of its layers."""

    source: Source
    """Library."""
    network: str
    """Name of the network in the library."""
    layer: str
    """Name of the module whose output is the top map."""

    def __str__(self) -> str:
        return f"{self.source}:{self.network}@{self.layer}"


_FOREIGN = re.compile(rf"({'|'.join(get_args(Source))}):([A-Za-z0-9_.-]+)@([A-Za-z0-9_.-]+)")
_SPELLING = "SOURCE:NAME@LAYER, such as torchvision:resnet18@layer4"


def foreign_name(backbone: str) -> ForeignName | None:
    """Return the parts of `SOURCE:NAME@LAYER`; None for a backbone of the table."""
    found = _FOREIGN.fullmatch(backbone)
    return ForeignName(found[1], found[2], found[3]) if found else None  # type: ignore[arg-type]


def check_backbone(name: str) -> str:
    """Return the name of a backbone if it is in the table, or spelled as one of another library.

    Raises:
        FieldError: it is neither.
    """
    if name in TABLE or foreign_name(name):
        return name
    hint = nearest(name.lower(), TABLE)
    raise FieldError(f"it must be {', '.join(map(repr, TABLE[:-1]))} or {TABLE[-1]!r}, or {_SPELLING}. {hint}".strip())


Backbone = Annotated[str, AfterValidator(check_backbone)]
"""Name of a backbone: of the table, or `SOURCE:NAME@LAYER`."""


class ModelSpec(Frozen):
    """Architecture of a job's network."""

    backbone: Backbone
    """Name of the backbone: of the table, or `SOURCE:NAME@LAYER` for a network of another library up to a layer."""
    variant: Variant
    """`interpretable` masks the top convolution and adds a second masked one; `ordinary` is the baseline."""
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Multiplier of every channel count; 1 is the published network. Of another library's network, the share of the
    top map's channels that is kept."""
    input_size: Annotated[int, Field(ge=48, le=512)] = 224
    """Side of the square input, pixels."""
    fc_width: Annotated[int, Field(ge=8)] = 4096
    """Number of units of fc6 and of fc7."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout probability after fc6 and fc7."""
    mask: bool = True
    """Whether interpretable layers multiply each map by the template at its peak (Sec. 3). False is an ablation."""
    new_layer_std: Positive | Literal["he"] | None = None
    """Standard deviation of the new convolution's first weights; `he` is He's, which preserves the signal. None is
    0.01, as published."""
