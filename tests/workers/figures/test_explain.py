"""An explained photograph: the filters' shares sum to the logit, and the picture shows them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import SpecError
from schemas.job import JobSpec
from tests.support.toy import SIDE, toy_network, toy_spec
from workers.data.readers.records import Box
from workers.figures import canvas
from workers.figures.explain import SHOWN, Explanation, explain
from workers.figures.explanation_plot import draw_explanation

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8))
BOX = Box(20, 10, 120, 90)


def explained(spec: JobSpec, category: str | None = None, box: Box = BOX) -> Explanation:
    network = toy_network(spec).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.05)
    mean_SS3 = torch.full((SIDE, SIDE, 3), 60.0)
    return explain(
        spec, network, mean_SS3, PICTURE, box, places={1: "on head 81%"}, category=category, report=lambda _: None
    )


@pytest.mark.parametrize("variant", ["ordinary", "interpretable"])
def test_the_shares_of_the_filters_sum_to_the_logit(variant: str) -> None:
    found = explained(toy_spec(variant))
    shares = [says.contribution for says in found.filters]
    assert found.base + sum(shares) + found.residual == pytest.approx(found.logit, abs=1e-5)
    assert abs(found.residual) < 0.01 * sum(abs(share) for share in shares)
    assert [abs(share) for share in shares] == sorted((abs(share) for share in shares), reverse=True)
    assert found.probabilities == {"voc-cat": pytest.approx(1 / (1 + np.exp(-found.logit)))}
    assert {says.filter: says.place for says in found.filters}[1] == "on head 81%"


def test_peaks_lie_in_the_box_in_pixels_of_the_photograph() -> None:
    found = explained(toy_spec())
    peaks = [says.peak for says in found.filters if says.peak]
    assert peaks
    assert all(BOX.left < x < BOX.right and BOX.top < y < BOX.bottom for x, y in peaks)
    assert all((says.peak is None) == (says.activation == 0) for says in found.filters)


def test_only_the_filters_that_matter_most_are_looked_for() -> None:
    fields = [says.field_SS is not None for says in explained(toy_spec()).filters]
    assert fields == [True] * SHOWN + [False] * (len(fields) - SHOWN)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_any_answer_of_several_can_be_explained(loss: str) -> None:
    spec = toy_spec(data__categories=("voc_part/cat", "voc_part/dog"), loss=loss)
    likeliest, other = explained(spec), explained(spec, category="voc_part/dog")
    assert likeliest.label == max(likeliest.probabilities, key=likeliest.probabilities.__getitem__)
    assert other.label == "voc-dog"
    assert other.decision == likeliest.decision
    if loss == "softmax":
        assert sum(likeliest.probabilities.values()) == pytest.approx(1)
    with pytest.raises(SpecError, match="voc_part/cat, voc_part/dog"):
        explained(spec, category="voc_part/cow")


def test_an_answer_among_species_is_named_by_species() -> None:
    spec = toy_spec(
        "ordinary", loss="softmax", data__categories=("cub200/bird",), data__images="photographs",
        data__labels="species", data__label_names=("001.Gull", "002.Wren", "003.Tern"),
    )  # fmt: skip
    found = explained(spec)
    assert list(found.probabilities) == ["001.Gull", "002.Wren", "003.Tern"]
    assert found.label == max(found.probabilities, key=found.probabilities.__getitem__)
    with pytest.raises(SpecError, match=r"001\.Gull, 002\.Wren, 003\.Tern"):
        explained(spec, category="cub200/bird")


@pytest.mark.parametrize("box", [BOX, Box(0, 0, 130, 9), Box(0, 0, 9, 90)])
def test_the_picture_names_every_share(tmp_path: Path, box: Box) -> None:
    found = explained(toy_spec(), box=box)
    figure = draw_explanation(found, PICTURE, "cat.jpg")
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    assert f"{found.base:+.3f}" in texts
    assert "without any filter" in texts
    assert any("(on head 81%)" in text for text in texts) == (1 in [says.filter for says in found.filters[:8]])
    caption = [text.get_text() for text in figure.texts][-2:]
    assert any("patch of 14% of the image's side" in line for line in caption)
    assert any("from maps of zeros to those of conv6" in line for line in caption)
    canvas.save(figure, tmp_path / "explained.png")
    image = np.asarray(Image.open(tmp_path / "explained.png").convert("RGB"))
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (border == 255).all()
