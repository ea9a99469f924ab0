"""The 37 categories, and the words by which people find them."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from schemas.categories import CATEGORIES, category_of, find_categories, normal_name
from schemas.data_spec import DataSpec
from schemas.errors import SpecError
from schemas.grids import GRIDS


def test_the_paper_has_37_categories_in_three_data_sets() -> None:
    assert Counter(c.dataset for c in CATEGORIES) == {"ilsvrc_animal_part": 30, "voc_part": 6, "cub200": 1}
    assert len({c.id for c in CATEGORIES}) == len({c.label for c in CATEGORIES}) == 37


def test_landmarks_are_those_of_the_paper() -> None:
    by_label = {c.label: c.landmarks for c in CATEGORIES}
    assert by_label["ilsvrc-goldfish"] == ("head",)
    assert by_label["ilsvrc-cat"] == ("head", "frontal_legs")
    assert by_label["voc-cat"] == ("head", "neck", "torso")
    assert by_label["cub-bird"] == ("forehead", "back", "tail")


def test_parts_are_those_of_the_paper() -> None:
    by_label = {c.label: c.parts for c in CATEGORIES}
    assert by_label["voc-bird"] == by_label["cub-bird"] == ("head", "torso", "legs", "tail")
    assert by_label["voc-cat"] == by_label["voc-dog"] == ("head", "torso", "frontal_legs", "back_legs", "tail")
    hoofed = {by_label[label] for label in ("voc-cow", "voc-horse", "voc-sheep", "ilsvrc-zebra")}
    assert hoofed == {("head", "torso", "frontal_legs", "back_legs")}


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("voc_part/cat", ["voc_part/cat"]),
        ("voc-cat", ["voc_part/cat"]),
        ("n02121808", ["ilsvrc_animal_part/n02121808"]),
        (" Cat ", ["ilsvrc_animal_part/n02121808", "voc_part/cat"]),
        ("bird", ["ilsvrc_animal_part/n01503061", "voc_part/bird", "cub200/bird"]),
        ("mittens/cat", ["mittens/cat"]),
    ],
)
def test_a_word_finds_every_category_it_fits(word: str, ids: list[str]) -> None:
    assert [c.id for c in find_categories(word)] == ids


def test_an_unknown_word_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'zebra'"):
        find_categories("zbera")


@pytest.mark.parametrize("word", ["voc_part/unicorn", "voc/cat", "mittens/neg", "mittens/", "a b/cat", "a/b/c"])
def test_an_id_that_no_imported_category_can_have_is_unknown(word: str) -> None:
    with pytest.raises(SpecError, match="No category is called"):
        find_categories(word)


def test_an_imported_category_is_called_by_data_set_and_key() -> None:
    found = category_of("mittens/tabby_cat")
    assert (found.dataset, found.key, found.id, found.label) == (
        "mittens", "tabby_cat", "mittens/tabby_cat", "mittens-tabby_cat",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name"),
    [(" Tabby  Cat ", "tabby_cat"), ("left-ear", "left-ear"), ("Кот", "кот"), ("a/b", ""), ("", ""), ("x" * 41, "")],
)
def test_names_are_stored_in_one_form(written: str, name: str) -> None:
    assert normal_name(written) == name


def test_generated_animals_are_those_of_the_paper() -> None:
    counts = {"train_per_category": 2, "test_per_category": 2}
    with pytest.raises(ValidationError, match="mittens/cat, which is not one of the generated animals"):
        DataSpec.model_validate({"categories": ("mittens/cat",), **counts})
    assert DataSpec.model_validate({"categories": ("mittens/cat",), "images": "photographs"}).is_single


def test_the_grid_of_everything_is_296_jobs() -> None:
    axes = GRIDS["all-categories"].axes
    assert [len(axes[name]) for name in ("category", "backbone", "variant")] == [37, 4, 2]
