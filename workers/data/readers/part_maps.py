"""Which pixels of a photograph show which part of an object, whatever the form of its masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.categories import Category, is_imported
from workers.data.readers.records import AnnotatedObject


def part_map(record: AnnotatedObject, category: Category, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the parts of an object.

    Args:
        record: an object with masks.
        category: its category; bits are in the order of its parts.
        shape: (H, W) of the photograph, in pixels.

    Returns:
        (H, W); bit k is set on the pixels of the category's k-th part.

    Raises:
        DataError: the masks cannot be read, or have another size than the photograph.
    """
    assert record.masks is not None
    if is_imported(category.dataset):
        from workers.data.readers.imported import read_part_bits

        return read_part_bits(record.masks, shape)
    from workers.data.readers import voc_masks

    return voc_masks.part_map(record, category, shape)
