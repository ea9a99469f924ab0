"""Inputs of the trained layers: mean-subtracted images, or features of the frozen layers computed once.

Shape legend: N images   B images of a batch   S input side.
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
"""Bytes of features kept in memory at most; larger ones are recomputed for every batch."""

EVALUATION_BATCH = 64
"""Images per batch where nothing is trained."""


class Inputs:
    """One split of the data as inputs of one network's `forward_head`."""

    def __init__(
        self,
        network: Network,
        split: Split,
        mean_SS3: NDArray[np.float32],
        device: torch.device,
        *,
        memory_divisor: int = 1,
    ) -> None:
        """Wrap a split for a network.

        Args:
            network: the network whose frozen layers are applied.
            split: images and labels.
            mean_SS3: mean image that is subtracted.
            device: device of the inputs.
            memory_divisor: factor by which batches and kept features are made smaller.
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
        """Number of images per batch where nothing is trained."""
        return max(1, EVALUATION_BATCH // self._memory_divisor)

    def keep_features(self, *, horizontal_flip: bool, report: ReportPhase) -> None:
        """Compute the frozen layers' features of every image once, if they fit into memory.

        Args:
            horizontal_flip: keep the features of the flipped images too.
            report: called before each batch.
        """
        if self._network.first_trained_layer is None:
            return
        first = self.as_they_are(np.zeros(1, dtype=np.int64))
        rows = len(self) * (1 + horizontal_flip)
        if first.numel() * first.element_size() * rows > MEMORY_LIMIT // self._memory_divisor:
            return
        # Filled in place: concatenating batches would need twice the memory.
        kept = first.new_empty((rows, *first.shape[1:]))
        for flipped in (False, True)[: 1 + horizontal_flip]:
            for index_B in self.batches():
                report("computing features of the frozen layers")
                start = int(index_B[0]) + len(self) * flipped
                kept[start : start + len(index_B)] = self._compute(index_B, np.full(len(index_B), flipped))
        self._kept = kept

    def take(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Tensor:
        """Return the input of `forward_head` for some images.

        Args:
            index_B: indices of the images.
            flip_B: which of them to flip left to right.
        """
        if self._kept is None:
            return self._compute(index_B, flip_B)
        row_B = torch.from_numpy(index_B + len(self) * flip_B.astype(np.int64)).to(self._device)
        return self._kept.index_select(0, row_B)

    def batches(self) -> Iterator[Indices]:
        """Yield the indices of all images in order, batch by batch."""
        size = self.evaluation_batch
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)), dtype=np.int64)

    def as_they_are(self, index_B: Indices) -> Tensor:
        """Return the input of `forward_head` for some images without flips."""
        return self.take(index_B, np.zeros(len(index_B), dtype=np.bool_))

    def images(self, index_B: Indices) -> Tensor:
        """Return the images as the whole network takes them, without flips: (B, 3, S, S)."""
        return self._images(index_B, np.zeros(len(index_B), dtype=np.bool_))

    @torch.no_grad()
    def _compute(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Tensor:
        return self._network.forward_trunk(self._images(index_B, flip_B))

    def _images(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Tensor:
        pixels_BSS3 = torch.from_numpy(self._split.take(index_B)).to(self._device)
        flips_B = torch.from_numpy(flip_B).to(self._device)
        pixels_BSS3 = torch.where(flips_B[:, None, None, None], pixels_BSS3.flip(2), pixels_BSS3)
        return to_input(pixels_BSS3, self.mean_SS3)
