"""How a trained network's filters are measured: on which images and with which thresholds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Fraction, Frozen


class EvaluationSpec(Frozen):
    """Settings of location instability (Sec. 5.2.2) and part interpretability (Sec. 5.2.1)."""

    split: Literal["test", "all"] = "test"
    """Images on which filters are measured: the held-out ones (the text, and the authors' released code for CUB), or
    every annotated one (their code for the other data sets)."""
    top_images: Annotated[int, Field(ge=2)] = 100
    """Number of images per filter and landmark for location instability, highest peak first (Sec. 5.2.2)."""
    fewest_images: Annotated[int, Field(ge=2)] = 2
    """Minimum number of images for a filter's deviation at a landmark; 2 in the released code. A multi-category network
    takes each filter's lowest deviation over categories (min_c), which may rest on a category where the filter fires
    only twice; 20 excludes such categories."""
    stability_images: Annotated[int, Field(ge=0)] = 48
    """Number of measured images, evenly spaced, that are shown once more with noise to measure stability; 0 leaves it
    out."""
    valid_share: Fraction = 0.005
    """p(x_ij > T_f) of part interpretability (Sec. 5.2.1): the fraction of a filter's units, over all images, that
    count as valid. On maps of 13 to 17 units a side it is about one unit per image. On smaller maps it is less, and an
    image without a valid unit is associated with no part."""
    part_regions: Literal["round", "bilinear"] = "round"
    """How valid units become a region of the image (Sec. 5.2.1): a disc around each unit's centre (footnote 5), or
    Network Dissection's bilinear upsampling of the map."""
    round_radius: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Radius of the disc as a fraction of the input's side. The paper does not give it (footnote 5): 0.15 makes a disc
    about as large as an animal's head in its crop. Compare networks at the same radius only."""
