"""Generated animals as a source of pictures: they are drawn in chunks, and training and test never share one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schemas.categories import CATEGORIES
from schemas.job import DataSpec
from schemas.order import ReportPhase
from workers.data.pictures import Picture, Sides
from workers.data.prepared.animals import CHUNK, Chunk, chunk_part_set, chunk_set, draw_ahead
from workers.data.prepared.image_sets import ImageSet
from workers.data.split import pick, share_out


@dataclass(frozen=True)
class Animals:
    """Source of generated animals; training and test pictures come from separate random streams."""

    data: DataSpec
    size: int
    seed: int
    cache_dir: Path
    report: ReportPhase

    @property
    def _counts(self) -> dict[str, int]:
        """Pictures of a category in each split; DataSpec rejects generated data without counts."""
        return {"train": self.data.train_per_category or 0, "test": self.data.test_per_category or 0}

    def draw_ahead(self, processes: int) -> None:
        """Draw the pictures of all categories, in several processes if that pays."""
        chunks = [
            Chunk(category, split, number, self.size)
            for category in self.data.categories
            for split, count in self._counts.items()
            for number in range(-(-count // CHUNK))
        ]
        draw_ahead(self.cache_dir, chunks, processes, self.report)

    def positives(self, category: str) -> Sides:
        """Return the pictures of a category, at most as many as `data` says."""
        return Sides(
            *(self._pictures(category, split, range(count), is_positive=True) for split, count in self._counts.items())
        )

    def negatives(self, category: str, train: int, test: int) -> Sides:
        """Return pictures of other animals, drawn by the job's seed.

        Args:
            train: number of positives to train on, copies included.
            test: number of positives to test on, copies included.
        """
        others = [other.id for other in CATEGORIES if other.id != category]
        return Sides(self._draw(others, "train", train), self._draw(others, "test", test))

    def _draw(self, others: list[str], split: str, positives: int) -> list[Picture]:
        wanted = max(1, round(self.data.negatives_per_positive * positives))
        shares = share_out(wanted, [wanted] * len(others), self.seed)
        drawn = []
        for other, share in zip(others, shares, strict=True):
            whole_chunks = -(-share // CHUNK) * CHUNK
            drawn += self._pictures(other, split, pick(whole_chunks, share, self.seed), is_positive=False)
        return drawn

    def _pictures(self, category: str, split: str, indices: Iterable[int], *, is_positive: bool) -> list[Picture]:
        sets: dict[Chunk, ImageSet] = {}
        pictures = []
        for index in indices:
            chunk = Chunk(category, split, index // CHUNK, self.size)
            if chunk not in sets:
                sets[chunk] = chunk_set(self.cache_dir, chunk, self.report)
            parts = partial(chunk_part_set, self.cache_dir, chunk, self.report)
            name = f"{category} {split} {index}"
            pictures.append(Picture(sets[chunk], index % CHUNK, category, is_positive, name, parts))
        return pictures
