"""Keeps maps of the measured layer, so that several measures share one forward pass.

Shape legend: B images of a batch   F filters   H = W map side.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from workers.training.inputs import Indices


class KeptMaps:
    """Maps by batch of images. A batch is only found again as a whole, because its size decides the last bits.

    Args:
        wanted: batches whose maps are worth keeping.
        limit: bytes of maps that are kept at most; those of further batches are computed again.
    """

    def __init__(self, wanted: Iterable[Indices], limit: int) -> None:
        self._wanted = {index_B.tobytes() for index_B in wanted}
        self._room = limit
        self._kept: dict[bytes, Tensor] = {}

    def wants(self, index_B: Indices, size: int) -> bool:
        """Return whether the maps of a batch, `size` bytes, are wanted and there is room for them."""
        return index_B.tobytes() in self._wanted and size <= self._room

    def keep(self, index_B: Indices, x_BFHW: Tensor) -> None:
        """Keep the maps of a batch if they are wanted and there is room."""
        if self.wants(index_B, x_BFHW.nbytes):
            self._kept[index_B.tobytes()] = x_BFHW
            self._room -= x_BFHW.nbytes

    def get(self, index_B: Indices) -> Tensor | None:
        """Return the maps of a batch, or None if they were not kept."""
        return self._kept.get(index_B.tobytes())

    def pop(self, index_B: Indices) -> Tensor | None:
        """Return the maps of a batch for the last time, which makes room; None if they were not kept."""
        x_BFHW = self._kept.pop(index_B.tobytes(), None)
        self._room += 0 if x_BFHW is None else x_BFHW.nbytes
        return x_BFHW
