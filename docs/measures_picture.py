"""Draws docs/images/measures.png: `python docs/measures_picture.py` takes a few seconds.

Two made-up filters on generated cats: one always peaks at the same place, the other near the head wherever it is. Their
scatter is chosen so that both have about the same location instability; the other measures tell them apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from interp_model.metrics.consistency import NEAR, consistency, counted, near_landmarks
from interp_model.metrics.scene import make_scene
from interp_model.metrics.tracking import real_variance, shuffled, tracking_share
from orchestrator.report.measures import share_text
from workers.data.generated.generate import generate
from workers.figures import canvas

OUT = Path(__file__).with_name("images") / "measures.png"
CATEGORY, LANDMARK, SIDE, N, SHOWN = "voc_part/cat", "head", 128, 100, 6
UNITS = 14
"""Side of the map."""
SCATTER = 17.5
"""Standard deviation of the following filter's distance from the head, pixels."""
RED, BLUE = "#cf3d2e", "#1f6feb"


def main() -> None:
    """Draw the picture."""
    images = [generate(CATEGORY, index, SIDE, split="test") for index in range(N)]
    head_N2 = torch.tensor(np.array([image.landmarks[LANDMARK] for image in images]))
    centre_H = (torch.arange(UNITS) + 0.5) * SIDE / UNITS - 0.5
    place_P2 = torch.cartesian_prod(centre_H, centre_H).double()
    scatter_N2 = SCATTER * torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
    follows_N = (place_P2 - (head_N2.nan_to_num(SIDE / 2) + scatter_N2)[:, None]).norm(dim=2).argmin(dim=1)
    stands_N = torch.full((N,), UNITS * UNITS // 2 + UNITS // 2)
    unit_NF = torch.stack([stands_N, follows_N], dim=1)
    score_NF, landmark_NK2 = torch.ones(N, 2), head_N2[:, None]
    scene = make_scene(unit_NF, score_NF, score_NF > 0, place_P2, landmark_NK2, SIDE)
    real_F = scene.mean_deviation(real_variance(scene))
    dealt_F = scene.mean_deviation(shuffled(scene).variance_KF)
    share_F = tracking_share(real_F, dealt_F)
    near_KNF = near_landmarks(place_P2[unit_NF], landmark_NK2, SIDE)
    counts_KNF = counted(score_NF > 0, landmark_NK2)
    near_F = consistency(near_KNF, counts_KNF, place_P2, landmark_NK2, SIDE, fewest=2).share_F
    names = ("stands still", "follows the head")
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(2, 1, hspace=0.02)
    shown = [n for n in range(N) if not head_N2[n].isnan().any()][:SHOWN]
    for f, (name, part) in enumerate(zip(names, rows, strict=True)):
        part.suptitle(
            f"A filter that {name}: instability {real_F[f]:.3f}, shuffled {dealt_F[f]:.3f}, "
            f"tracking share {share_text(share_F[f].item())}, head near its peak in {near_F[f]:.0%} of images",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        for n, axes in zip(shown, part.subplots(1, SHOWN), strict=True):
            (row, column), (head_row, head_column) = place_P2[unit_NF[n, f]].tolist(), head_N2[n].tolist()
            half = NEAR * SIDE
            square = ([column - half, column + half, column + half, column - half, column - half],
                      [row - half, row - half, row + half, row + half, row - half])  # fmt: skip
            axes.imshow(images[n].image_SS3)
            axes.plot([column, head_column], [row, head_row], color="white", lw=1.5)
            axes.plot(*square, color=RED, lw=1, ls=":")
            axes.plot(column, row, "o", color=RED, mec="white", ms=7)
            axes.plot(head_column, head_row, "x", color=BLUE, mew=2.5, ms=8)
            axes.set_axis_off()
            axes.set_xlim(-0.5, SIDE - 0.5)
            axes.set_ylim(SIDE - 0.5, -0.5)
    canvas.save(figure, OUT)
    Image.open(OUT).convert("RGB").quantize(64).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
