"""Figures show the best and the median filters, and compute the receptive fields of a filter once."""

from __future__ import annotations

import pytest
import torch

from tests.support.toy import CPU, toy_data, toy_network, toy_spec
from tests.workers.test_outcome import row
from workers.evaluation.peaks import find_peaks
from workers.figures import compose, receptive_fields
from workers.figures.receptive_fields import Care
from workers.training.inputs import Inputs


@pytest.mark.parametrize(
    ("filters", "count", "expected"),
    [
        (9, 4, [(0, True), (1, True), (3, False), (4, False)]),
        (9, 3, [(0, True), (1, True), (4, False)]),
        (3, 4, [(0, True), (1, True), (2, False)]),
        (1, 4, [(0, True)]),
        (9, 1, [(0, True)]),
        (0, 4, []),
    ],
)
def test_half_of_the_filters_are_the_best_and_half_lie_about_the_median(
    filters: int, count: int, expected: list[tuple[int, bool]]
) -> None:
    ranked = [row(index, 0.1 * index) for index in range(filters)]
    assert [(one.filter, is_best) for one, is_best in compose.best_and_median(ranked, count)] == expected


def studied() -> compose.Studied:
    spec = toy_spec()
    network, data = toy_network(spec), toy_data(spec)
    measured = Inputs(network, data.measured, data.mean_SS3, CPU)
    peaks = find_peaks(network, measured, lambda _: None)
    return compose.Studied(spec, network, data, measured, peaks, [row(index, 0.1 * index) for index in range(6)])


def test_a_figure_says_which_filters_it_shows_and_why() -> None:
    found = studied()
    chosen = found.chosen(4)
    assert [(one.kind, one.row.filter) for one in chosen] == [
        ("steadiest", 0), ("steadiest", 1), ("median", 2), ("median", 3),
    ]  # fmt: skip
    assert compose.label_of(chosen[2], found.spec) == "median: filter 2\ninstability 0.200"
    assert found.choice(chosen) == (
        "2 steadiest and 2 median of 6 filters of conv6, by location instability on 12 images"
    )


def test_receptive_fields_are_computed_once_for_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def see(*arguments: object) -> dict[int, torch.Tensor]:
        asked.extend(arguments[3])  # type: ignore[arg-type]
        return receptive_fields.filter_fields(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compose, "filter_fields", see)
    found, care = studied(), Care(images=1, stride=0.5)
    shown = [compose.draw_gallery(found, 2, care, lambda _: None), compose.draw_fields(found, 2, care, lambda _: None)]
    assert None not in shown
    assert asked == [0, 2]
    assert compose.draw_gallery(found, 2, None, lambda _: None) is not None
    assert asked == [0, 2]
