"""Imported MatConvNet files compute the same in our networks, or the mismatching layer is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor
from torch.nn import functional

from interp_model.backbones import top_conv
from interp_model.network import build_network, to_input
from interp_model.weights import load_state_into
from schemas.errors import WeightsError
from schemas.job import BackboneName, ModelSpec
from tests.support.real_data import REAL_DATA, needs_real_data
from tests.support.weight_fixtures import Layers, cell, matconvnet_layers, normalization, write_mat, write_mat73
from workers.data.readers.matlab import read_mat
from workers.weights.importing import import_weights, verify_weights


def forward(layers: Layers, x_NCHW: Tensor, upto: str) -> dict[str, Tensor]:
    """Return what MatConvNet computes from a file's fields, in double precision; by layer, after ReLU."""
    maps: dict[str, Tensor] = {}
    for layer in layers:
        numbers = {name: [int(v) for v in layer[name].ravel()] for name in ("pad", "stride", "pool") if name in layer}
        if "pad" in numbers:
            top, bottom, left, right = numbers["pad"]
            beyond = 0.0 if layer["type"] == "conv" else -np.inf
            x_NCHW = functional.pad(x_NCHW, (left, right, top, bottom), value=beyond)
        if layer["type"] == "conv":
            kernel_HWIO, bias = layer["weights"].ravel()
            kernel = torch.from_numpy(kernel_HWIO.astype(np.float64)).permute(3, 2, 0, 1)
            bias_O = torch.from_numpy(bias.ravel().astype(np.float64))
            groups = x_NCHW.shape[1] // kernel.shape[1]
            x_NCHW = functional.conv2d(x_NCHW, kernel, bias_O, numbers["stride"], groups=groups)
        elif layer["type"] == "relu":
            x_NCHW = maps[layer["name"].removeprefix("relu_")] = x_NCHW.relu()
            if upto in maps:
                break
        elif layer["type"] == "pool":
            x_NCHW = functional.max_pool2d(x_NCHW, numbers["pool"], numbers["stride"])
        else:
            size, kappa, alpha, beta = layer["param"].ravel()
            reach = int(size) // 2
            channels = range(x_NCHW.shape[1])
            sums = [x_NCHW[:, max(0, c - reach) : c + reach + 1].square().sum(1) for c in channels]
            x_NCHW = x_NCHW / (kappa + alpha * torch.stack(sums, 1)) ** beta
    return maps


@pytest.mark.parametrize(("backbone", "side"), [("vgg_m", 224), ("vgg_s", 224), ("alexnet_2012", 227), ("vgg16", 64)])
def test_an_imported_network_computes_what_the_files_own_conventions_say(
    tmp_path: Path, backbone: BackboneName, side: int
) -> None:
    layers = matconvnet_layers(backbone)
    state, provenance = import_weights(write_mat(tmp_path / "net.mat", layers, side=side), backbone, 1.0)
    network = build_network(ModelSpec(backbone=backbone, variant="ordinary", input_size=side, fc_width=8), 1)
    load_state_into(network, state)
    first, top = "conv1_1" if backbone == "vgg16" else "conv1", top_conv(backbone).name

    pixels_SS3 = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mean_SS3 = normalization(side, image=True)["averageImage"]
    theirs = torch.from_numpy(pixels_SS3.astype(np.float64) - mean_SS3).permute(2, 0, 1)[None]
    expected = forward(layers, theirs, top)
    x, found = to_input(torch.from_numpy(pixels_SS3)[None], torch.from_numpy(mean_SS3)), {}
    with torch.no_grad():
        for name in list(network.blocks)[: list(network.blocks).index(top) + 1]:
            if name in (first, top):
                found[name] = network.get_submodule(f"blocks.{name}.conv")(x).relu()
            x = network.blocks[name](x)
    for name, map_NFHW in found.items():
        scale = float(expected[name].max())
        assert scale > 1
        torch.testing.assert_close(map_NFHW.double(), expected[name], rtol=0, atol=1e-5 * scale)
    assert provenance.label == "ImageNet (net.mat)"
    assert provenance.mean_rgb == pytest.approx((123.68, 116.779, 103.939), abs=1e-3)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_older_fields_and_matlab_7_3_hold_the_same_network(tmp_path: Path) -> None:
    newer, _ = import_weights(write_mat(tmp_path / "newer.mat", matconvnet_layers("vgg_m")), "vgg_m", 1.0)
    older_file = write_mat(tmp_path / "older.mat", matconvnet_layers("vgg_m", old=True), old=True, image=False)
    older, provenance = import_weights(older_file, "vgg_m", 1.0)
    hdf5, other = import_weights(write_mat73(tmp_path / "v73.mat", matconvnet_layers("vgg_m")), "vgg_m", 1.0)
    assert same(newer, older)
    assert same(newer, hdf5)
    assert provenance.mean_rgb == pytest.approx((123.68, 116.779, 103.939), abs=1e-3)
    assert other.label == "a MatConvNet network (v73.mat)"  # three classes are not ImageNet's


def of(layers: Layers, name: str) -> dict[str, Any]:
    return next(layer for layer in layers if layer["name"] == name)


def narrow(layers: Layers) -> None:
    kernel, bias = of(layers, "conv3")["weights"].ravel()
    of(layers, "conv3")["weights"] = cell(kernel[..., :256].copy(), bias[:, :256].copy())


def infinite(layers: Layers) -> None:
    of(layers, "conv4")["weights"].ravel()[0][0, 0, 0, 0] = np.inf


NO_PAD, ONE_FOUR = np.zeros((1, 4)), np.array([[4.0]])
TWO, CAFFE = np.array([[2.0, 2.0]]), np.array([[5, 1, 2e-5, 0.75]])
SPOILED: list[tuple[Callable[[Layers], Any], str]] = [
    (narrow, r"weight of conv3 has shape \(256, 256, 3, 3\), expected \(512, 256, 3, 3\)"),
    (infinite, r"weight for conv4 of vgg_m holds numbers that are not finite"),
    (lambda net: of(net, "conv2").update(pad=NO_PAD), r"pad for conv2 .* \(1, 1, 1, 1\) and is \(0, 0, 0, 0\)"),
    (lambda net: of(net, "conv1").update(stride=ONE_FOUR), r"stride for conv1 .* \(2, 2\) and is \(4, 4\)"),
    (lambda net: of(net, "conv3").update(dilate=TWO), r"dilation for conv3 .* \(1, 1\) and is \(2, 2\)"),
    (lambda net: of(net, "pool2").update(pad=NO_PAD), r"pad for pool2 .* \(0, 1, 0, 1\) and is \(0, 0, 0, 0\)"),
    (lambda net: of(net, "pool1").update(pool=TWO), r"window for pool1 .* \(3, 3\) and is \(2, 2\)"),
    (lambda net: of(net, "pool1").update(method="avg"), r"method for pool1 .*'max'.*'avg'"),
    (
        lambda net: of(net, "norm_conv1").update(param=CAFFE),
        r"lrn for conv1 .*5, 2\.0, 0\.0001, 0\.75.* \(5, 1, 2e-05,",
    ),
    (lambda net: net.remove(of(net, "norm_conv2")), r"layers for conv2 .*'lrn'\) and is \('conv', 'relu'\)"),
    (lambda net: net.insert(1, {"name": "bn1", "type": "bnorm"}), r"layers for conv1 .* \('conv', 'bnorm', 'relu'"),
    (lambda net: net.__delitem__(slice(10, None)), "no layers for conv4 of vgg_m"),
    (lambda net: of(net, "conv5").pop("weights"), "no weight for conv5 of vgg_m"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_a_layer_that_differs_is_named_with_both_values(
    tmp_path: Path, spoil: Callable[[Layers], Any], message: str
) -> None:
    layers = matconvnet_layers("vgg_m")
    spoil(layers)
    with pytest.raises(WeightsError, match=message):
        import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", 1.0)


def test_a_pad_that_no_window_reaches_is_no_difference(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_m")
    of(layers, "pool1").update(pad=NO_PAD)  # of conv1's 109 units at 224 px, windows of 3 at stride 2 end on the last
    assert all(row.fits for row in verify_weights(write_mat(tmp_path / "net.mat", layers), "vgg_m", 1.0))


def test_a_file_that_ends_with_the_top_convolution_is_whole(tmp_path: Path) -> None:
    layers = matconvnet_layers("vgg_s")[:-1]
    assert len(import_weights(write_mat(tmp_path / "net.mat", layers), "vgg_s", 1.0)[0]) == 10


def test_another_backbone_is_named_at_the_first_layer_that_parts(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "net.mat", matconvnet_layers("vgg_s"))
    row = next(row for row in verify_weights(path, "vgg_m", 1.0) if not row.fits)
    assert (row.layer, row.kind, row.expected, row.found) == ("pool1", "stride", (2, 2), (3, 3))


def test_a_dagnn_and_a_file_without_a_network_are_told_apart(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "dag.mat", {"layers": np.zeros((1, 3)), "params": np.zeros(3)})
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    for name, message in (("dag.mat", "holds a DagNN"), ("other.mat", "holds no network")):
        with pytest.raises(WeightsError, match=message):
            import_weights(tmp_path / name, "vgg16", 1.0)


def test_a_truncated_file_says_so_in_both_formats(tmp_path: Path) -> None:
    layers = matconvnet_layers("alexnet_2012")
    for path in (write_mat(tmp_path / "v5.mat", layers), write_mat73(tmp_path / "v73.mat", layers)):
        path.write_bytes(path.read_bytes()[:-100_000])
        with pytest.raises(WeightsError, match="damaged MATLAB file"):
            import_weights(path, "alexnet_2012", 1.0)


def test_a_network_for_pixels_between_0_and_1_is_refused(tmp_path: Path) -> None:
    about = {"imageSize": np.array([[224.0, 224, 3]]), "averageImage": np.full((1, 1, 3), 0.45)}
    layers = cell(*matconvnet_layers("alexnet_2012"))
    scipy.io.savemat(tmp_path / "net.mat", {"layers": layers, "meta": {"normalization": about}})
    with pytest.raises(WeightsError, match=r"mean of 0\.45, 0\.45, 0\.45.*pixels of 0 to 255"):
        import_weights(tmp_path / "net.mat", "alexnet_2012", 1.0)


@needs_real_data
def test_real_matlab_files_of_both_versions_are_read() -> None:
    kinds = set()
    for path in sorted((REAL_DATA / "authors_mat").glob("**/*.mat")):
        kinds.add(path.read_bytes()[:10])
        truth = read_mat(path)["truth"]
        assert len(truth) > 100, path
        assert all(row.keys() == {"obj", "pHW_center", "pHW_scale"} for row in truth), path
    assert kinds == {b"MATLAB 5.0", b"MATLAB 7.3"}
