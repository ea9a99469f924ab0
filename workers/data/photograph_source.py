"""Photographs as a source of pictures: whole categories are prepared once, and split for each job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from schemas.job import DataSpec
from schemas.order import ReportPhase
from workers.data.data_root import DataRoot
from workers.data.everything import has_negatives, held_out, kind_of
from workers.data.pictures import Picture, Sides
from workers.data.prepared.photographs import have_masks, part_set, photograph_set
from workers.data.readers.species import species_label
from workers.data.split import even_split, pick, repeat, seeded_split, share_out, take_evenly


@dataclass(frozen=True)
class Photographs:
    """Source of crops of annotated objects; a whole category is prepared and then split."""

    data: DataSpec
    size: int
    seed: int
    root: DataRoot
    report: ReportPhase

    def positives(self, category: str) -> Sides:
        """Return the pictures of a category, at most as many as `data` says."""
        sides = self._sides(category, is_positive=True)
        return Sides(
            take_evenly(sides.train, self.data.train_per_category), take_evenly(sides.test, self.data.test_per_category)
        )

    def negatives(self, category: str, train: int, test: int) -> Sides:
        """Return pictures of other animals or of the folder of negatives, drawn by the job's seed.

        Args:
            train: number of positives to train on, copies included.
            test: number of positives to test on, copies included.
        """
        if self.data.negatives == "folder":
            stocks = [self._sides(self.root.negative_stock(category), is_positive=False)]
        else:
            others = [name for name in self.root.other_categories(category) if self.root.records(name)]
            stocks = [self._sides(name, is_positive=False) for name in others]
        # In a photograph that also shows the category, the crop of another animal often shows some of it.
        own = {record.photograph for record in self.root.records(category)}
        train_stocks, test_stocks = (
            [[picture for picture in side if picture.photograph not in own] for side in sides]
            for sides in zip(*stocks, strict=True)
        )
        return Sides(self._draw(train_stocks, train), self._draw(test_stocks, test))

    def held_out(self) -> set[str]:
        """Return the photographs that this job or those that start from it are tested on, not to be trained on.

        They are the whole test sides, also where `data.test_per_category` tests less of them here. A photograph may
        show animals of several categories, and each category is split independently.

        Returns:
            Values of `Picture.photograph`.
        """
        if self.data.labels == "everything":
            return held_out(self.root, self.split)
        names = (*self.data.categories, *self.data.held_out_categories)
        return {self.root.records(name)[i].photograph for name in names for i in self.split(name)[1]}

    def unmeasured(self) -> Iterator[Sides]:
        """Yield the photographs of pre-training on everything on which no filter is measured: those of no category."""
        for stock in self.root.stocks():
            if stock not in self.data.categories and stock not in self.root.present_categories():
                yield self._sides(stock, is_positive=False)

    def _draw(self, stocks: list[list[Picture]], positives: int) -> list[Picture]:
        wanted = max(1, round(self.data.negatives_per_positive * positives))
        shares = share_out(wanted, [len(stock) for stock in stocks], self.seed)
        drawn = [
            stock[i] for stock, share in zip(stocks, shares, strict=True) for i in pick(len(stock), share, self.seed)
        ]
        return repeat(drawn, wanted) if self.data.repeat_negatives else drawn

    def _sides(self, category: str, *, is_positive: bool) -> Sides:
        records = self.root.records(category)
        prepared = photograph_set(self.root, category, self.size, self.report)
        row_of = {item: row for row, item in enumerate(prepared.items)}
        has_masks = is_positive and have_masks(records)
        parts = partial(part_set, self.root, category, prepared, self.report)
        open_parts = parts if has_masks else None
        train, test = self.split(category)
        everything = self.data.labels == "everything"
        label_of = kind_of if everything else species_label
        return Sides(
            *(
                [
                    Picture(
                        prepared,
                        row_of[i],
                        category,
                        is_positive,
                        records[i].photograph,
                        open_parts,
                        label_of(category, records[i]),
                    )
                    for i in side
                    if i in row_of and (not everything or kind_of(category, records[i]) in self.data.label_names)
                ]
                for side in (train, test)
            )
        )

    def split(self, stock: str) -> tuple[list[int], list[int]]:
        """Return the indices of the objects of a category, or of the negatives, for training and for testing."""
        records, fraction = self.root.records(stock), self.data.test_fraction
        if has_negatives(stock) and self.data.negatives_test_fraction is not None:
            fraction = self.data.negatives_test_fraction
        if self.data.split == "official" and all(record.official for record in records):
            train = [i for i, record in enumerate(records) if record.official == "train"]
            return train, [i for i, record in enumerate(records) if record.official == "test"]
        groups = [record.photograph for record in records]
        if self.data.split == "seeded":
            return seeded_split(groups, fraction, self.data.split_seed)
        return even_split(groups, fraction)
