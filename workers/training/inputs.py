"""What the trained layers take of a split: mean-subtracted images, or features of frozen layers computed once.

Shape legend: N images   B images of a batch   V views (as it is, mirrored)   S input side.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_model.network import Network, to_input
from schemas.order import ReportPhase
from workers.data.dataset import Split

Indices = NDArray[np.int64]

MEMORY_LIMIT = 2 * 1024**3
"""Features beyond this many bytes are not kept; they are computed anew for every batch."""

EVALUATION_BATCH = 64


class Inputs:
    """One split, as one network's `forward_head` takes it."""

    def __init__(
        self,
        network: Network,
        split: Split,
        mean_SS3: NDArray[np.float32],
        device: torch.device,
        *,
        memory_divisor: int = 1,
    ) -> None:
        """
        Args:
            memory_divisor: by what to divide the memory that batches and kept features may take.
        """
        self._memory_divisor = memory_divisor
        self._network = network
        self._split = split
        self.mean_SS3 = torch.from_numpy(mean_SS3).to(device)
        self._device = device
        self._kept: Tensor | None = None
        self.label_N = torch.from_numpy(np.asarray(split.labels_N, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self._split)

    @property
    def evaluation_batch(self) -> int:
        """How many images to put through the network at a time where nothing is trained."""
        return max(1, EVALUATION_BATCH // self._memory_divisor)

    def keep_features(self, *, horizontal_flip: bool, report: ReportPhase) -> None:
        """Compute what the frozen layers make of every image, once, where that fits into memory."""
        if self._network.trunk_end is None:
            return
        first = self.as_they_are(np.zeros(1, dtype=np.int64))
        rows = len(self) * (1 + horizontal_flip)
        if first.numel() * first.element_size() * rows > MEMORY_LIMIT // self._memory_divisor:
            return
        # Filled in place: batches that are joined afterwards would take the memory twice.
        kept = first.new_empty((rows, *first.shape[1:]))
        for mirrored in (False, True)[: 1 + horizontal_flip]:
            for index_B in self.batches():
                report("computing features of the frozen layers")
                start = int(index_B[0]) + len(self) * mirrored
                kept[start : start + len(index_B)] = self._compute(index_B, np.full(len(index_B), mirrored))
        self._kept = kept

    def take(self, index_B: Indices, mirrored_B: NDArray[np.bool_]) -> Tensor:
        """Input of `forward_head` for some images, some of them mirrored left to right."""
        if self._kept is None:
            return self._compute(index_B, mirrored_B)
        row_B = torch.from_numpy(index_B + len(self) * mirrored_B.astype(np.int64)).to(self._device)
        return self._kept.index_select(0, row_B)

    def batches(self) -> Iterator[Indices]:
        """All images in order."""
        size = self.evaluation_batch
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)), dtype=np.int64)

    def as_they_are(self, index_B: Indices) -> Tensor:
        """Input of `forward_head` for some images, none mirrored."""
        return self.take(index_B, np.zeros(len(index_B), dtype=np.bool_))

    def images(self, index_B: Indices) -> Tensor:
        """The images themselves as a network takes them, none mirrored: (B, 3, S, S)."""
        return self._images(index_B, np.zeros(len(index_B), dtype=np.bool_))

    @torch.no_grad()
    def _compute(self, index_B: Indices, mirrored_B: NDArray[np.bool_]) -> Tensor:
        return self._network.forward_trunk(self._images(index_B, mirrored_B))

    def _images(self, index_B: Indices, mirrored_B: NDArray[np.bool_]) -> Tensor:
        pixels_BSS3 = torch.from_numpy(self._split.take(index_B)).to(self._device)
        flips_B = torch.from_numpy(mirrored_B).to(self._device)
        pixels_BSS3 = torch.where(flips_B[:, None, None, None], pixels_BSS3.flip(2), pixels_BSS3)
        return to_input(pixels_BSS3, self.mean_SS3)
