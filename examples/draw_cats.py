"""Draws stand-ins for a folder of one's own cats: `python examples/draw_cats.py cats` writes pictures and a table.

cats/cats.csv      box, head and torso of every cat
cats/tom-000.jpg   one drawn cat each
cats/neg/          other drawn animals, which are no cats
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from workers.data.generated.generate import generate

CATS, OTHERS = 120, 120
SIDE, WIDTH, HEIGHT = 160, 240, 200
LANDMARKS = ("head", "torso")
STRANGERS = ("voc_part/dog", "voc_part/horse", "cub200/bird", "voc_part/sheep")


def draw(category: str, index: int) -> tuple[Image.Image, tuple[int, int], dict[str, tuple[float, float]]]:
    """Return a picture of one animal before a plain wall, where its box begins, and its landmarks.

    Returns:
        The picture; (left, top) of the box of `SIDE` pixels; (row, column) of the landmarks in the picture, in pixels.
    """
    animal, rng = generate(category, index, SIDE, seed=1), np.random.default_rng(index)
    left, top = int(rng.integers(WIDTH - SIDE + 1)), int(rng.integers(HEIGHT - SIDE + 1))
    picture = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(value) for value in rng.integers(90, 190, 3)))
    picture.paste(Image.fromarray(animal.image_SS3), (left, top))
    shown = {name: at for name, at in animal.landmarks.items() if name in LANDMARKS and at[0] == at[0]}
    return picture, (left, top), {name: (row + 0.5 + top, column + 0.5 + left) for name, (row, column) in shown.items()}


def main(folder: Path) -> None:
    """Write the pictures and the table."""
    (folder / "neg").mkdir(parents=True)
    with (folder / "cats.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        columns = [f"{name}_{axis}" for name in LANDMARKS for axis in "xy"]
        table.writerow(["image", "x", "y", "width", "height", *columns])
        for n in range(CATS):
            picture, (left, top), marks = draw("voc_part/cat", n)
            picture.save(folder / f"tom-{n:03d}.jpg", quality=95)
            points = [marks.get(name) for name in LANDMARKS]
            cells = [("", "") if at is None else (f"{at[1]:.1f}", f"{at[0]:.1f}") for at in points]
            table.writerow([f"tom-{n:03d}.jpg", left, top, SIDE, SIDE, *(cell for pair in cells for cell in pair)])
    for n in range(OTHERS):
        draw(STRANGERS[n % len(STRANGERS)], n)[0].save(folder / f"neg/other-{n:03d}.jpg", quality=95)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
