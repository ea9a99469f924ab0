"""Generated animals as a source of pictures: they are drawn in chunks, and training and test never share one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.categories import BY_ID, CATEGORIES
from schemas.job import RECIPE_VERSION, DataSpec
from schemas.order import ReportPhase
from workers.data.generated.animals import GENERATOR_VERSION
from workers.data.pictures import Picture, Sides
from workers.data.prepared.image_sets import ImageSet, PreparedImage, open_set
from workers.data.split import pick, share_out

if TYPE_CHECKING:
    from workers.data.generated.generate import Generated

_CHUNK = 16
"""Generated animals per set; small, so that a few negatives of a category are quick to prepare."""


@dataclass(frozen=True)
class Animals:
    """Source of generated animals; training and test pictures come from separate random streams."""

    data: DataSpec
    size: int
    seed: int
    cache_dir: Path
    report: ReportPhase

    def positives(self, category: str) -> Sides:
        """Return the pictures of a category, at most as many as `data` says."""
        # DataSpec rejects generated data without counts.
        train, test = self.data.train_per_category or 0, self.data.test_per_category or 0
        return Sides(
            self._pictures(category, "train", range(train), is_positive=True),
            self._pictures(category, "test", range(test), is_positive=True),
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
            whole_chunks = -(-share // _CHUNK) * _CHUNK
            drawn += self._pictures(other, split, pick(whole_chunks, share, self.seed), is_positive=False)
        return drawn

    def _pictures(self, category: str, split: str, indices: Iterable[int], *, is_positive: bool) -> list[Picture]:
        chunks: dict[int, ImageSet] = {}
        pictures = []
        for index in indices:
            chunk = index // _CHUNK
            if chunk not in chunks:
                chunks[chunk] = self._chunk(category, split, chunk)
            parts = partial(self._chunk_parts, category, split, chunk)
            pictures.append(
                Picture(chunks[chunk], index % _CHUNK, category, is_positive, f"{category} {split} {index}", parts)
            )
        return pictures

    def _chunk(self, category: str, split: str, chunk: int) -> ImageSet:
        def build(done: int) -> Iterator[PreparedImage]:
            for index, name, picture in self._draw_chunk(category, split, chunk, done):
                seen = {name: at for name, at in picture.landmarks.items() if at[0] == at[0]}
                yield PreparedImage(index, name, picture.image_SS3, seen)

        shape = (_CHUNK, self.size, self.size, 3)
        return open_set(self.cache_dir, self._key(category, split, chunk), shape, build, self.report)

    def _chunk_parts(self, category: str, split: str, chunk: int) -> ImageSet:
        """Return the part maps of a chunk, drawn again for the few measured pictures instead of stored for all."""

        def build(done: int) -> Iterator[PreparedImage]:
            from workers.data.generated.generate import merge_parts

            for index, name, picture in self._draw_chunk(category, split, chunk, done):
                yield PreparedImage(index, name, merge_parts(picture.parts_SS, BY_ID[category].parts), {})

        key = f"{self._key(category, split, chunk)}-parts-r{RECIPE_VERSION}"
        return open_set(self.cache_dir, key, (_CHUNK, self.size, self.size), build, self.report)

    def _key(self, category: str, split: str, chunk: int) -> str:
        return f"{category.replace('/', '-')}-{split}-{chunk}-{self.size}px-v{GENERATOR_VERSION}"

    def _draw_chunk(self, category: str, split: str, chunk: int, done: int) -> Iterator[tuple[int, str, Generated]]:
        from workers.data.generated.generate import generate

        self.report(f"drawing {BY_ID[category].label}")
        for index in range(chunk * _CHUNK + done, (chunk + 1) * _CHUNK):
            name = f"generated {BY_ID[category].label} {split} {index}"
            yield index, name, generate(category, index, self.size, split=split)
