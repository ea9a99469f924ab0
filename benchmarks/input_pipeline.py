"""What the inputs of an epoch cost: our prepared images beside torchvision's DataLoader over the same photographs.

Both read JPEG files of 500 x 375 pixels, resize them to the network's square, flip half of them, subtract the mean
image and yield float32 batches in a new order each epoch. We decode each photograph once, in the first epoch, and keep
its pixels; the DataLoader decodes it in every epoch, as `ImageFolder` with transforms does. No network is run.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --images 1200 --side 128
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from interp_model.network import PIXEL_SCALE, build_network
from schemas.job import ModelSpec
from workers.data.dataset import Rows, Split
from workers.data.prepared.image_sets import PreparedImage, open_set
from workers.data.prepared.photographs import crops
from workers.data.readers.records import AnnotatedObject
from workers.training.inputs import Inputs
from workers.training.schedule import batches_of_epoch, flips_of_epoch

PHOTOGRAPH = (375, 500)
"""Rows and columns of a photograph."""
DETAIL = 12
"""Pixels of a photograph along each axis for one of the noise that is enlarged; the file then takes 60 kB."""
SEED = 0

Batches = Callable[[int], Iterator[Tensor]]
"""Yields the batches of an epoch, whose number is counted from 1."""


class Cost(NamedTuple):
    """Milliseconds per image."""

    wall: float
    cpu: float
    """Of this process and those that it started."""


def write_photographs(folder: Path, images: int) -> None:
    """Write JPEG files into one class's folder, as `ImageFolder` expects it."""
    (folder / "animal").mkdir(parents=True)
    rows, columns = PHOTOGRAPH
    rng = np.random.default_rng(SEED)
    for number in range(images):
        coarse = rng.integers(0, 256, (rows // DETAIL, columns // DETAIL, 3), dtype=np.uint8)
        fine = rng.integers(0, 24, (rows, columns, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))
        Image.fromarray((smooth // 2 + 32 + fine).astype(np.uint8)).save(
            folder / "animal" / f"{number:05}.jpg", quality=90
        )


class Prepared:
    """Our inputs: photographs are decoded in the first epoch and kept as pixels, on the disk and mapped."""

    def __init__(self, folder: Path, cache: Path, mean_SS3: NDArray[np.float32], batch: int) -> None:
        self._paths = sorted((folder / "animal").iterdir())
        self._cache, self._mean_SS3, self._batch = cache, mean_SS3, batch
        self._inputs: Inputs | None = None

    def _open(self) -> Inputs:
        side, count = len(self._mean_SS3), len(self._paths)
        records = [AnnotatedObject(path, "", None, {}) for path in self._paths]

        def build(done: int) -> Iterator[PreparedImage | str]:
            return crops("animal", records, (), side, done, lambda _: None)

        found = open_set(self._cache, f"photographs-{side}", (count, side, side, 3), build, lambda _: None)
        zero_N = np.zeros(count, dtype=np.int64)
        split = Split(
            labels_N=zero_N,
            categories_N=zero_N,
            landmarks_NK2=np.full((count, 1, 2), np.nan, dtype=np.float32),
            names_N=found.names,
            images_NSS3=Rows((found.pixels_N,), zero_N, np.arange(count, dtype=np.int64)),
        )
        spec = {"backbone": "alexnet", "width": 0.125, "input_size": side, "fc_width": 32, "variant": "ordinary"}
        network = build_network(ModelSpec.model_validate(spec), 1, from_scratch=True)
        return Inputs(network, split, self._mean_SS3, torch.device("cpu"))

    def __call__(self, epoch: int) -> Iterator[Tensor]:
        """See `Batches`."""
        self._inputs = self._inputs or self._open()
        batches = batches_of_epoch(len(self._paths), self._batch, SEED, epoch)
        for index_B, flip_B in zip(batches, flips_of_epoch(batches, SEED, epoch, horizontal_flip=True), strict=True):
            yield self._inputs.take(index_B, flip_B)


class Loaded:
    """torchvision's inputs: photographs are decoded in every epoch, here or in processes that stay."""

    def __init__(self, folder: Path, mean_SS3: NDArray[np.float32], batch: int, processes: int) -> None:
        mean_3SS = torch.from_numpy(mean_SS3).permute(2, 0, 1)
        side = len(mean_SS3)
        transform = v2.Compose([
            v2.Resize((side, side)),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.Lambda(lambda pixels_3SS: (pixels_3SS.to(torch.float32) - mean_3SS) / PIXEL_SCALE),
        ])  # fmt: skip
        self._loader = DataLoader(
            ImageFolder(folder, transform),
            batch_size=batch, shuffle=True, num_workers=processes, persistent_workers=processes > 0,
        )  # fmt: skip

    def __call__(self, epoch: int) -> Iterator[Tensor]:
        """See `Batches`."""
        for images_B3SS, _ in self._loader:
            yield images_B3SS


def cost(batches: Batches, epoch: int, images: int) -> Cost:
    """Measure one epoch."""
    before, started = _cpu(), time.monotonic()
    seen = sum(len(batch) for batch in batches(epoch))
    assert seen == images, f"{seen} of {images} images"
    return Cost((time.monotonic() - started) / images * 1e3, (_cpu() - before) / images * 1e3)


def _cpu() -> float:
    """CPU seconds of this process and of its children that live."""
    found = [process.cpu_times() for process in (psutil.Process(), *psutil.Process().children())]
    return sum(times.user + times.system for times in found)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--side", type=int, default=224, help="Side of the network's input.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mean_SS3 = np.full((options.side, options.side, 3), 128.0, dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="orch-inputs-") as scratch:
        folder = Path(scratch, "photographs")
        write_photographs(folder, options.images)
        ways: dict[str, Batches] = {
            "ours": Prepared(folder, Path(scratch, "cache"), mean_SS3, options.batch),
            "DataLoader, this process": Loaded(folder, mean_SS3, options.batch, 0),
            "DataLoader, two processes": Loaded(folder, mean_SS3, options.batch, 2),
        }
        spent: dict[str, list[Cost]] = {name: [] for name in ways}
        for epoch in range(1, options.epochs + 1):  # in turn, so that other load falls on all alike
            for name, batches in ways.items():
                spent[name].append(cost(batches, epoch, options.images))
    print("milliseconds per image: first epoch, then the mean of the others; wall (CPU)")
    for name, costs in spent.items():
        later = [sum(values) / (len(costs) - 1) for values in zip(*costs[1:], strict=True)]
        print(f"{name:28} {costs[0].wall:7.2f} ({costs[0].cpu:.2f}) {later[0]:9.2f} ({later[1]:.2f})")


if __name__ == "__main__":
    main()
