"""`import orch`: sweeps as objects, networks on plain torch, and the measure on any images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import orch
from interp_model.metrics.location_instability import location_instability
from schemas.errors import DataError, SpecError, StoreError

SWEEP = {
    "name": "tiny",
    "base": {
        "category": "voc_part/cat",
        "backbone": "alexnet",
        "variant": "interpretable",
        "model": {"input_size": 64, "width": 0.05, "fc_width": 16},
        "data": {"train_per_category": 8, "test_per_category": 6},
        "weights.source": "random",
        "train": {"epochs": 1, "batch_size": 8},
    },
    "axes": {"seed": [0, 1]},
}


def test_only_what_is_public_is_there_and_torch_is_imported_late() -> None:
    code = "import sys, orch; orch.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        orch.train  # noqa: B018
    for name in orch.__all__:
        assert getattr(orch, name).__doc__


def test_a_plan_has_the_jobs_of_the_command_line(tmp_path: Path) -> None:
    found = orch.plan("voc-part", home=tmp_path, categories=["cat"], variants=["ordinary"], sets={"train.epochs": 2})
    titles = [job.spec.title for job in found.jobs if not job.spec.is_pretraining]
    assert titles == ["voc-cat alexnet ordinary"]
    assert {job.spec.train.epochs for job in found.jobs if not job.spec.is_pretraining} == {2}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rates.yaml").write_text("base: {category: voc-cat, backbone: alexnet, variant: ordinary}\n")
    assert orch.plan(tmp_path / "rates.yaml", home=tmp_path / "home").sweep.name == "rates"


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("voc-parts", {}, "No sweep file at voc-parts"),
        ({"grids": "smoke"}, {}, "The sweep: unknown field `grids`"),
        ("voc-part", {"datasets": ["mittens"]}, "No data set is called 'mittens'"),
        ("voc-part", {"backbones": ["vgg_m"], "weights": "torchvision"}, "publishes no weights for vgg_m"),
    ],
)
def test_what_cannot_be_planned_is_refused(what: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        orch.plan(what, home=tmp_path, **options)


def test_an_unknown_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        orch.sweep("tiny", home=tmp_path)


@pytest.mark.slow
def test_a_sweep_runs_and_its_networks_are_used(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sweep = orch.run(SWEEP, home=home, workers=1)
    assert sweep.counts == {"done": 2}
    frame = orch.sweep("tiny", home=home).to_frame()
    assert list(frame["seed"]) == [0, 1]
    job = sweep.job("seed 1")
    assert (job.title, job.state) == ("voc-cat alexnet interpretable seed 1", "succeeded")
    assert job.metrics is not None
    assert frame.set_index("key").loc[job.key, "test_accuracy"] == job.metrics.test_accuracy
    with pytest.raises(SpecError, match="fits 2 jobs"):
        sweep.job("cat")

    network = job.network()
    rng = np.random.default_rng(0)
    pixels_HW3 = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).save(tmp_path / "noise.png")
    image_13SS = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None] / 255
    (label,) = job.predict(tmp_path / "noise.png")
    assert label == "voc-cat"
    expected = network.probabilities(image_13SS).item()
    assert job.predict(Image.fromarray(pixels_HW3)) == {label: pytest.approx(expected)}
    assert job.predict(tmp_path / "noise.png", box=(0, 0, 64, 64)) == {label: pytest.approx(expected)}
    with pytest.raises(DataError):
        job.predict(tmp_path / "none.png")
    filters = job.filters()
    assert len(filters) == network.maps(image_13SS).shape[1]
    with pytest.raises(SpecError, match=r"shape \(N, 3, 64, 64\)"):
        network((255 * image_13SS).byte())
    with pytest.raises(SpecError, match="Figure 3 cannot be drawn"):
        job.figure(3, tmp_path / "f.png")

    # Peaks of the own module are those of the measure: the same number by hand from its maps.
    image_N3SS = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    landmark_NK2 = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(1)) * 64
    field = network.network.receptive_field(network.network.top_layer)
    map_NFHW = network.maps(image_N3SS)
    side = map_NFHW.shape[-1]
    place_NF = map_NFHW.flatten(2).argmax(dim=2)
    centre_H = torch.tensor([field.centre_of(unit) - 0.5 for unit in range(side)])
    peak_NF2 = torch.stack([centre_H[place_NF // side], centre_H[place_NF % side]], dim=2)
    diagonal_N = torch.full((6,), 64 * 2**0.5)
    by_hand = location_instability(peak_NF2, map_NFHW.flatten(2).amax(dim=2), landmark_NK2, diagonal_N, 100, 2).mean
    assert orch.instability(network, image_N3SS, landmark_NK2, fewest=2) == pytest.approx(by_hand, nan_ok=True)
    with pytest.raises(SpecError, match=r"6 images need landmarks of shape \(6, K, 2\)"):
        orch.instability(network, image_N3SS, landmark_NK2[:3])
