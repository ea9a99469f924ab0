"""Inputs of the trained layers: mean-subtracted images, or features of the frozen layers computed once.

Shape legend: N images   B images of a batch   S input side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_model.network import Network, to_input
from schemas.job import RECIPE_VERSION
from schemas.order import ReportPhase
from workers.data.dataset import Split
from workers.training.frozen_features import FeatureStore

Indices = NDArray[np.int64]

MEMORY_LIMIT = 2 * 1024**3
"""Largest features of a split, in bytes, that are held in memory: a GPU's, if there is one. Larger ones are read from
their file; without a file they are recomputed for every batch."""

PICTURES_SHARE = 0.2
"""Most of a device's free memory that the pictures of one split may take."""

UNPINNED_BYTES = 2**16
"""Largest array that is copied to a GPU without pinned memory. The copy of a larger one would wait for the GPU."""

EVALUATION_BATCH = 64
"""Images per batch where nothing is trained."""

CPU_BATCH = 8
"""Images that pass through the frozen layers of a CPU at once. Maps of more leave its caches; benchmarks/README.md."""

_FEATURES_VERSION = 2
"""Version of what `features_name` names."""


def features_name(
    network: Network, split: Split, mean_SS3: NDArray[np.float32], device: torch.device, *, flips: bool, batch: int
) -> str:
    """Return the name of a split's features, from all that determines their bits.

    These are the frozen layers with their weights, the pictures, the mean image, the size of a batch, and the kind of
    device with torch's version and number of threads.

    Args:
        flips: whether the features of the mirror images follow.
        batch: rows that are computed together.
    """
    digest = hashlib.sha256()
    about = [_FEATURES_VERSION, RECIPE_VERSION, flips, batch, torch.__version__, torch.get_num_threads(), device.type]
    if device.type == "cuda":
        about.append(torch.cuda.get_device_name(device))
    else:
        about.append(torch.backends.cpu.get_cpu_capability())
    digest.update(repr(about).encode())
    for name, block in network.trunk().items():
        digest.update(f"{name} {block!r}{getattr(block, 'code', '')}".encode())  # the code of a traced block
        for key, tensor in block.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(np.ascontiguousarray(mean_SS3).tobytes())
    for start in range(0, len(split), batch):
        digest.update(split.take(range(start, min(start + batch, len(split)))).tobytes())
    return f"{digest.hexdigest()[:32]}-r{RECIPE_VERSION}"


def has_room(device: torch.device, size: int) -> bool:
    """Return whether a device's own memory has room for `size` bytes of pictures; a CPU has no memory of its own."""
    if device.type != "cuda":
        return False
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
    return size <= PICTURES_SHARE * (torch.cuda.mem_get_info(device)[0] + kept)


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
        store: FeatureStore | None = None,
    ) -> None:
        """Wrap a split for a network.

        Args:
            network: the network whose frozen layers are applied.
            split: images and labels.
            mean_SS3: mean image that is subtracted.
            device: device of the inputs.
            memory_divisor: factor by which batches and kept features are made smaller.
            store: where this machine keeps features for other jobs too; None keeps them in memory.
        """
        self._store = store
        self._memory_divisor = memory_divisor
        self._network = network
        self._split = split
        self.mean_SS3 = torch.from_numpy(mean_SS3).to(device)
        self._device = device
        self._kept: Tensor | None = None
        self._pictures_NSS3: Tensor | None = None
        self._batches_only = False
        self.label_N = torch.from_numpy(np.asarray(split.labels_N, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self._split)

    @property
    def evaluation_batch(self) -> int:
        """Number of images per batch where nothing is trained."""
        return max(1, EVALUATION_BATCH // self._memory_divisor)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether an earlier attempt ran out of memory, so that nothing is kept that can be computed again."""
        return self._memory_divisor > 1

    @property
    def memory_limit(self) -> int:
        """Bytes that features or maps of these images may take at most, while they are kept in memory."""
        return MEMORY_LIMIT // self._memory_divisor

    def keep_features(self, *, horizontal_flip: bool, report: ReportPhase) -> None:
        """Compute the frozen layers' features of every image once, if they fit into the machine's store or into memory.

        Without frozen layers, the pictures themselves are kept on a device that has room for them.

        Args:
            horizontal_flip: keep the features of the flipped images too.
            report: called before each batch.
        """
        if self._network.first_trained_layer is None:
            self._keep_pictures(report)
            return
        first = self._first()
        rows = len(self) * (1 + horizontal_flip)
        shape = (rows, *first.shape[1:])
        fits = first.nbytes * rows <= self.memory_limit
        stored = self._stored(first.dtype, shape, horizontal_flip, report)
        if stored is not None:
            self._kept = stored.to(self._device) if fits else stored
        elif fits:
            # Filled in place: concatenating batches would need twice the memory.
            kept = first.new_empty(shape)
            start = 0
            for features_B in self._features(horizontal_flip, report):
                kept[start : start + len(features_B)] = features_B
                start += len(features_B)
            self._kept = kept

    def map_batches(self, report: ReportPhase) -> None:
        """Compute the frozen layers' features of the batches that `batches` yields once, if this machine keeps them.

        Other images are computed when they are taken, because the bits of features depend on the size of a batch.

        Args:
            report: called before each batch.
        """
        if self._network.first_trained_layer is None or self._device.type != "cpu":  # mapped, they need no memory
            return
        first = self._first()
        self._kept = self._stored(first.dtype, (len(self), *first.shape[1:]), False, report)
        self._batches_only = True

    def _keep_pictures(self, report: ReportPhase) -> None:
        side = self._network.input_size
        shape = (len(self), side, side, 3)
        if self.is_short_of_memory or not has_room(self._device, math.prod(shape)):
            return
        kept = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for index_B in self.batches():
            report("preparing images")
            kept[int(index_B[0]) : int(index_B[-1]) + 1] = self._on_device(self._split.take(index_B))
        self._pictures_NSS3 = kept

    def _first(self) -> Tensor:
        return self.as_they_are(np.zeros(1, dtype=np.int64))

    def _stored(
        self, dtype: torch.dtype, shape: tuple[int, ...], horizontal_flip: bool, report: ReportPhase
    ) -> Tensor | None:
        """Return features that this machine keeps, mapped from their file; None if it cannot keep them."""
        if self._store is None or dtype != torch.float32:
            return None
        mean_SS3 = self.mean_SS3.cpu().numpy()
        batch = self.evaluation_batch
        name = features_name(self._network, self._split, mean_SS3, self._device, flips=horizontal_flip, batch=batch)
        features = (features_B.cpu().numpy() for features_B in self._features(horizontal_flip, report))
        found = self._store.get(name, shape, features, report)
        return None if found is None else torch.from_numpy(found)

    def _features(self, horizontal_flip: bool, report: ReportPhase) -> Iterator[Tensor]:
        """Yield the features of all images and then, with flips, of their mirror images, batch by batch."""
        for flipped in (False, True)[: 1 + horizontal_flip]:
            for index_B in self.batches():
                report("computing features of the frozen layers")
                yield self._compute(index_B, np.full(len(index_B), flipped))

    def take(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Tensor:
        """Return the input of `forward_head` for some images.

        Args:
            index_B: indices of the images.
            flip_B: which of them to flip left to right.
        """
        if self._kept is None or (self._batches_only and not self._is_batch(index_B)):
            return self._compute(index_B, flip_B)
        row_B = index_B + len(self) * flip_B.astype(np.int64)
        if self._kept.device.type == self._device.type:
            return self._kept.index_select(0, self._on_device(row_B))
        return self._on_device(self._kept.index_select(0, torch.from_numpy(row_B)).numpy())

    def labels(self, index_B: Indices) -> Tensor:
        """Return the labels of some images: (B,)."""
        return self.label_N[self._on_device(index_B)]

    def batches(self) -> Iterator[Indices]:
        """Yield the indices of all images in order, batch by batch."""
        size = self.evaluation_batch
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)), dtype=np.int64)

    def _is_batch(self, index_B: Indices) -> bool:
        start, size = int(index_B[0]), self.evaluation_batch
        return start % size == 0 and np.array_equal(index_B, np.arange(start, min(start + size, len(self))))

    def as_they_are(self, index_B: Indices) -> Tensor:
        """Return the input of `forward_head` for some images without flips."""
        return self.take(index_B, np.zeros(len(index_B), dtype=np.bool_))

    def images(self, index_B: Indices) -> Tensor:
        """Return the images as the whole network takes them, without flips: (B, 3, S, S)."""
        return self._images(index_B, np.zeros(len(index_B), dtype=np.bool_))

    @torch.no_grad()
    def _compute(self, index_B: Indices, flip_B: NDArray[np.bool_]) -> Tensor:
        if self._network.first_trained_layer is None or self._device.type != "cpu":
            return self._network.forward_trunk(self._images(index_B, flip_B))
        parts = torch.split(self._images(index_B, flip_B, torch.channels_last), CPU_BATCH)
        return torch.cat([self._network.forward_trunk(part_b3SS) for part_b3SS in parts]).contiguous()

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        """Return a copy of an array on the device, without waiting for what the device is doing."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda" and array.nbytes > UNPINNED_BYTES:
            tensor = tensor.pin_memory()  # which torch keeps until the device has copied it
        return tensor.to(self._device, non_blocking=True)

    def _images(
        self, index_B: Indices, flip_B: NDArray[np.bool_], layout: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        if self._pictures_NSS3 is None:
            pixels_BSS3 = self._on_device(self._split.take(index_B))
        else:
            pixels_BSS3 = self._pictures_NSS3.index_select(0, self._on_device(index_B))
        flips_B = self._on_device(flip_B)
        pixels_BSS3 = torch.where(flips_B[:, None, None, None], pixels_BSS3.flip(2), pixels_BSS3)
        return to_input(pixels_BSS3, self.mean_SS3, layout)
