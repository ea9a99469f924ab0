"""Every figure says which data are generated, and the figures show the right filters."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from schemas.job import PretrainSpec
from tests.support.toy import toy_spec
from workers.evaluation.evaluate import FilterRow
from workers.figures.compose import steadiest_filters, subject
from workers.outcome import describe_epochs, write_filters

PHOTOGRAPHS = {"data__images": "photographs", "data__train_per_category": None, "data__test_per_category": None}
PRETRAINED = PretrainSpec(data=toy_spec(data__categories=("voc_part/cat", "voc_part/dog"), loss="softmax").data)


def row(index: int, instability: float | None, firing_rate: float = 1.0) -> FilterRow:
    return FilterRow(
        index,
        "voc_part/cat",
        "",
        instability,
        {"head": instability},
        {"head": 9},
        True,
        firing_rate,
        0.1,
        1.0,
        0.5,
        2.0,
    )


def test_figures_say_what_is_generated_and_what_is_random() -> None:
    assert subject(toy_spec()) == "voc-cat alexnet interpretable · generated animals · random initial weights"
    assert subject(toy_spec(weights=PRETRAINED)) == "voc-cat alexnet interpretable · generated animals"
    assert subject(toy_spec(weights=PRETRAINED, **PHOTOGRAPHS)) == (
        "voc-cat alexnet interpretable · photographs · pre-trained on generated animals"
    )


def test_the_curves_say_on_how_many_images_they_were_measured() -> None:
    assert describe_epochs("conv6", train=300, held_out=400) == (
        "per epoch: losses, accuracy and peaks of conv6 on 300 training images; accuracy on 400 held-out images, and "
        "information in the filters on 256 of them"
    )


def test_filters_that_hardly_fire_are_not_the_steadiest() -> None:
    rows = [row(0, 0.10), row(1, 0.02, firing_rate=0.1), row(2, 0.05)]
    assert [best.filter for best in steadiest_filters(rows)] == [2, 0, 1]


def test_the_table_of_filters_leaves_empty_what_has_no_value(tmp_path: Path) -> None:
    write_filters(tmp_path / "tables" / "filters.csv", [row(0, 0.25), row(1, None)])
    header, first, second = (tmp_path / "tables" / "filters.csv").read_text().splitlines()
    names = header.split(",")
    assert names[:2] == ["filter", "category"]
    cells = dict(zip(names, first.split(","), strict=True))
    assert (cells["location_instability"], cells["instability.head"], cells["images_used.head"]) == (
        "0.25",
        "0.25",
        "9",
    )
    assert dict(zip(names, second.split(","), strict=True))["instability.head"] == ""


def test_the_table_of_filters_has_a_column_for_every_part(tmp_path: Path) -> None:
    measured = replace(row(0, 0.25), part_interpretability=0.5, best_part="tail", per_part={"head": 0.25, "tail": 0.5})
    silent = replace(row(1, None), per_part={"head": None, "tail": None})
    write_filters(tmp_path / "filters.csv", [measured, silent])
    with open(tmp_path / "filters.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["part_interpretability"], first["best_part"]) == ("0.5", "tail")
    assert (first["part.head"], first["part.tail"]) == ("0.25", "0.5")
    assert (second["part_interpretability"], second["best_part"], second["part.head"]) == ("", "", "")
