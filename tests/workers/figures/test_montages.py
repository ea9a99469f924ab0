"""Montages of receptive fields and heat maps of peaks: what is lit, what glows, and nothing clipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from workers.figures import canvas, montages
from workers.figures.canvas import Title
from workers.figures.montages import Heated, Lit, MontageRow

TITLE = Title(
    "4 ilsvrc categories softmax vgg16 interpretable (loss alone, weight 0.01, logit_scale 4.0) seed 3 · photographs · "
    "pre-trained on generated animals",
    "what it shows",
)
GREY = np.full((64, 64, 3), 200, np.uint8)


def pixels(figure: Figure, folder: Path) -> NDArray[np.uint8]:
    canvas.save(figure, folder / "figure.png")
    image = np.asarray(cv2.imread(str(folder / "figure.png")), dtype=np.uint8)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (border == 255).all()
    return image


def test_an_image_is_dark_outside_the_receptive_field(tmp_path: Path) -> None:
    field_SS = np.zeros((64, 64), np.float32)
    field_SS[8:24, 40:56] = 1
    rows = [
        MontageRow("filter 3\ninstability 0.050\nnear frontal legs 81%", 3 * [Lit(GREY, field_SS)]),
        MontageRow("filter 4", [Lit(GREY, field_SS)]),
    ]
    image = pixels(montages.draw_montage(rows, TITLE), tmp_path)
    scale = montages.TILE / 64

    def seen(column: int, row: int, at: tuple[int, int]) -> int:
        step = montages.TILE + canvas.GAP
        return int(
            image[
                round(montages.TOP + row * step + at[0] * scale),
                round(montages.LABELS + column * step + at[1] * scale),
                0,
            ]
        )

    for column in range(3):
        assert seen(column, 0, (16, 48)) == 200
        assert seen(column, 0, (48, 16)) == int(200 * canvas.DIMMED)
    assert seen(0, 1, (16, 48)) == 200
    assert seen(1, 1, (48, 16)) == 255  # the second filter has one image only


def test_heat_glows_where_it_is_and_the_bars_name_their_parts(tmp_path: Path) -> None:
    heat_SS = np.zeros((64, 64), np.float32)
    heat_SS[10:20, 10:20] = 1
    shares = {"head": 0.61, "frontal_legs": 0.0, "background": 0.39}
    figure = montages.draw_heat(Heated(GREY, heat_SS), 5 * [Heated(GREY, heat_SS)], shares, "peaks on each part", TITLE)
    image = pixels(figure, tmp_path)
    scale = (2 * montages.TILE + canvas.GAP) / 64
    hot = image[round(montages.HEADED_TOP + 15 * scale), round(canvas.EDGE + 15 * scale)]
    cold = image[round(montages.HEADED_TOP + 50 * scale), round(canvas.EDGE + 50 * scale)]
    assert hot.max() - hot.min() > 60  # yellow
    assert cold.tolist() == [150, 150, 150]
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    assert {"61%", "39%", "frontal legs"} <= set(texts)


def test_a_heat_map_of_nothing_is_the_image(tmp_path: Path) -> None:
    nothing = Heated(GREY, np.zeros((64, 64), np.float32))
    assert pixels(montages.draw_heat(nothing, [nothing], {}, "", TITLE), tmp_path).size


def test_figures_of_two_networks_lie_one_below_the_other() -> None:
    pngs = [cv2.imencode(".png", np.full((10, width, 3), 7, np.uint8))[1].tobytes() for width in (20, 30)]
    joined = cv2.imdecode(np.frombuffer(canvas.one_below_the_other(pngs), np.uint8), cv2.IMREAD_COLOR)
    assert joined is not None
    assert joined.shape == (20, 30, 3)
    assert (joined[:10, 20:] == 255).all()
    assert (joined[10:] == 7).all()
