"""The published values: all there, and true to themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import fmean

import pytest

from schemas.categories import CATEGORIES, DATASETS
from schemas.paper import ALL, AVERAGE, published_values


def test_every_table_is_there_whole() -> None:
    assert Counter(value.table for value in published_values()) == {
        1: 56, 2: 12, 3: 248, 4: 56, 5: 8, 6: 16, 7: 40,
    }  # fmt: skip


def test_categories_are_named_as_everywhere_else() -> None:
    named = {(value.dataset, value.category) for value in published_values()}
    known = {(category.dataset, category.name) for category in CATEGORIES}
    assert known <= named
    assert named - known <= {(dataset, word) for dataset in DATASETS for word in (AVERAGE, ALL)}


def test_printed_averages_are_those_of_the_printed_categories() -> None:
    groups: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
    for value in published_values():
        if value.table in (1, 3, 4):
            groups[value.table, value.backbone, value.variant][value.category] = value.value
    assert len(groups) == 24
    for values in groups.values():
        assert fmean(v for name, v in values.items() if name != AVERAGE) == pytest.approx(values[AVERAGE], abs=1e-3)


def test_no_value_is_given_twice() -> None:
    places = [value.model_dump(exclude={"value"}).values() for value in published_values()]
    assert len({tuple(place) for place in places}) == len(places)
