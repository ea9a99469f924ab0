"""Figures have the size they were drawn for, show what they were given, and clip no label."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workers.figures import canvas, plots
from workers.figures.canvas import Floats, Title
from workers.figures.plots import FilterStrip, Marked, Shown
from workers.training.records import EpochRecord

TITLE = Title(
    "ilsvrc-hippopotamus vgg16 interpretable seed 3 · generated animals · random initial weights", "what it shows"
)
GREY_IMAGE = np.full((64, 64, 3), 128, np.uint8)


def record(epoch: int, weight: float) -> EpochRecord:
    information = (3.0 - 1 / epoch, 0.1, 1 / epoch)
    return EpochRecord(epoch, 1 / epoch, 3.0, weight / epoch, 2.0, 0.9, 0.95, 0.01, 1.0, *information)


def pixels(figure: Figure, folder: Path) -> NDArray[np.uint8]:
    canvas.save(figure, folder / "figure.png")
    width, height = figure.get_size_inches() * canvas.DPI
    image = cv2.imread(str(folder / "figure.png"))
    assert image.shape == (round(height), round(width), 3)
    return np.asarray(image[:, :, ::-1], dtype=np.uint8)


def shown(map_HW: Floats, mask_HW: Floats | None) -> Shown:
    masked_HW = map_HW if mask_HW is None else map_HW * mask_HW
    side = len(GREY_IMAGE)
    centre_H = ((np.arange(len(map_HW)) + 0.5) * side / len(map_HW)).astype(np.float32)
    return Shown(GREY_IMAGE, map_HW, mask_HW, canvas.laid_over(masked_HW, centre_H, side))


def shows(image: NDArray[np.uint8], colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(image.astype(int) - wanted).max(axis=2) < 12).any())


def assert_nothing_clipped(image: NDArray[np.uint8]) -> None:
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (border == 255).all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_curves_show_the_filter_loss_where_there_is_one(tmp_path: Path, weight: float) -> None:
    figure = plots.draw_curves([record(epoch, weight) for epoch in range(1, 21)], TITLE)
    assert any("filter loss" in axes.get_title("left") for axes in figure.axes) == (weight > 0)
    colours = [line.get_color() for axes in figure.axes for line in axes.lines]
    assert colours.count(canvas.PURPLE) == colours.count(canvas.ORANGE) == 1 + (weight > 0)  # one for the entropies
    image = pixels(figure, tmp_path)
    assert all(shows(image, colour) for colour in (canvas.BLUE, canvas.GREEN))
    assert_nothing_clipped(image)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_curves_show_the_information_in_the_filters(tmp_path: Path, weight: float) -> None:
    records = [record(epoch, weight) for epoch in range(1, 21)]
    for measured in (records, records[-1:]):
        image = pixels(plots.draw_curves(measured, TITLE), tmp_path)
        assert_nothing_clipped(image)
        assert all(shows(image, colour) for colour in (canvas.BLUE, canvas.PURPLE, canvas.ORANGE))


def test_one_epoch_is_enough_for_curves(tmp_path: Path) -> None:
    assert_nothing_clipped(pixels(plots.draw_curves([record(1, 1.0)], TITLE), tmp_path))


def test_the_chance_level_is_a_line_among_the_accuracies(tmp_path: Path) -> None:
    figure = plots.draw_curves([record(epoch, 1.0) for epoch in range(1, 4)], TITLE, chance=0.25)
    (accuracy,) = (axes for axes in figure.axes if axes.get_title("left") == "accuracy")
    (line,) = (line for line in accuracy.lines if line.get_label() == "held out, by chance")
    assert list(line.get_ydata()) == [0.25, 0.25]
    assert_nothing_clipped(pixels(figure, tmp_path))
    legend = accuracy.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y1 < accuracy.transData.transform((1, 0.25))[1]


@pytest.mark.parametrize("width", [300, 150, 77])
def test_a_text_is_made_to_fit_though_glyphs_do_not_shrink_evenly(width: int) -> None:
    text = canvas.blank(900, 100, TITLE).text(0, 0, "where a patch lowers a filter's activation by half", fontsize=7.5)
    canvas.fit(text, width)
    assert 0.7 * width < text.get_window_extent().width <= width


def test_the_gallery_masks_what_lies_far_from_the_peak(tmp_path: Path) -> None:
    map_HW = np.zeros((2, 2), np.float32)
    map_HW[0, 0], map_HW[1, 1] = 4, 4
    mask_HW = np.zeros((2, 2), np.float32)
    mask_HW[0, 0] = 1
    strip = FilterStrip("filter 3\ninstability 0.050\nilsvrc-hippopotamus", [shown(map_HW, mask_HW)])
    figure = plots.draw_gallery([strip], TITLE)
    image = pixels(figure, tmp_path)
    assert_nothing_clipped(image)
    left, top, step = 150, 78, plots.TILE + canvas.GAP
    near, far = plots.TILE // 4, 3 * plots.TILE // 4

    def seen(column: int, offset: int) -> NDArray[np.int64]:
        return image[top + offset, left + column * step + offset].astype(int)

    assert seen(0, near).tolist() == [128, 128, 128]
    assert seen(1, near).tolist() == seen(1, far).tolist()
    assert seen(2, near).tolist() == [255, 255, 255]
    assert seen(2, far).max() == 0
    assert np.ptp(seen(3, near)) > 60  # yellow over the image
    assert np.ptp(seen(3, far)) == 0  # the image, darkened


def test_a_gallery_without_masks_has_no_column_of_masks(tmp_path: Path) -> None:
    map_HW = np.ones((3, 3), np.float32)
    widths = [
        plots.draw_gallery([FilterStrip("filter 0", 4 * [shown(map_HW, mask)])], TITLE).get_figwidth()
        for mask in (None, map_HW)
    ]
    assert (widths[1] - widths[0]) * canvas.DPI == pytest.approx(4 * (plots.TILE + canvas.GAP))


def test_a_map_lies_over_the_image_where_its_units_look() -> None:
    map_HW = np.array([[0, 0], [0, 6]], np.float32)
    over_SS = canvas.laid_over(map_HW, np.array([2.5, 6.5], np.float32), 8)
    assert over_SS.shape == (8, 8)
    assert (over_SS[6:, 6:] == 6).all()  # from the centre of the last unit to the border
    assert over_SS[4, 4] == pytest.approx(6 / 4)  # half-way between the units, both ways
    assert over_SS[:3].max() == over_SS[:, :3].max() == 0


def test_the_map_of_a_silent_filter_is_black(tmp_path: Path) -> None:
    strip = FilterStrip("filter 0", [shown(np.zeros((3, 3), np.float32), None)])
    image = pixels(plots.draw_gallery([strip], TITLE), tmp_path)
    left = 150 + plots.TILE + canvas.GAP
    assert image[78 : 78 + plots.TILE, left : left + plots.TILE].max() < 5


def test_peaks_and_landmarks_are_drawn_where_they_are(tmp_path: Path) -> None:
    peak_F2 = np.array([[16.0, 48.0], [np.nan, np.nan]])
    marked = [Marked(GREY_IMAGE, peak_F2, {"head": (48.0, 16.0)}) for _ in range(7)]
    image = pixels(plots.draw_peaks(marked, ["filter 3 (0.051)", "filter 9 (0.060)"], TITLE), tmp_path)
    assert_nothing_clipped(image)
    corner = np.array([58, canvas.EDGE])
    scale = plots.PEAK_TILE / 64
    row, column = (corner + scale * np.array([16.5, 48.5])).round().astype(int)
    assert shows(image[row - 1 : row + 2, column - 1 : column + 2], canvas.FILTER_COLOURS[0])
    row, column = (corner + scale * np.array([48.5, 16.5])).round().astype(int)
    assert image[row - 1 : row + 2, column - 1 : column + 2].min() > 200
    pictures = image[58 : 58 + 2 * plots.PEAK_TILE]
    assert not shows(pictures, canvas.FILTER_COLOURS[1])  # it does not fire


def test_a_peak_beyond_the_image_is_marked_at_its_edge(tmp_path: Path) -> None:
    marked = [Marked(GREY_IMAGE, np.array([[-30.0, 90.0]]), {})]
    image = pixels(plots.draw_peaks(marked, ["filter 0"], TITLE), tmp_path)
    assert shows(image[58:70, canvas.EDGE + plots.PEAK_TILE - 12 :], canvas.FILTER_COLOURS[0])
