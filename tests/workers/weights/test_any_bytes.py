"""Whatever a weights file holds, `orch weights` accepts it or names its fault in one line, in bounded time."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from orchestrator.cli.main import main
from tests.support.weight_fixtures import matconvnet_layers, torchvision_state, write_hed, write_mat, write_mat73

WIDTH = 0.05
SECONDS = 20
"""Longest time for one command; most take a tenth of a second, and starting a new reader takes several."""
FORMATS = ("torch", "torch before 1.6", "safetensors", "matlab 5", "matlab 7.3", "hdf5")
BACKBONE = {"matlab 5": "vgg_m", "matlab 7.3": "vgg_m", "hdf5": "vgg16"}
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "params", "ema", "optimizer")
PREFIXES = ("", "module.", "model.", "_orig_mod.", "net.module.", "backbone.", "other.")
KINDS = st.sampled_from(
    (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.complex64, torch.bool)
)
MANY = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def written(format: str, folder: Path) -> bytes:
    """Return a valid file of a format."""
    path, state = folder / "file", torchvision_state("alexnet", WIDTH)
    if format == "safetensors":
        save_file(state, path)
    elif format.startswith("torch"):
        torch.save(state, path, _use_new_zipfile_serialization=format == "torch")
    elif format == "hdf5":
        write_hed(path, width=WIDTH)
    elif format == "matlab 5":
        write_mat(path, matconvnet_layers("vgg_m", width=WIDTH), image=False)
        path = path.with_name(path.name + ".mat") if not path.exists() else path
    else:
        write_mat73(path, matconvnet_layers("vgg_m", width=WIDTH), image=False)
    return path.read_bytes()


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {format: written(format, tmp_path_factory.mktemp("valid")) for format in FORMATS}


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA_ROOT", "PROFILE", "TRACKING_URI", "RAY_ADDRESS"):
            patch.delenv(f"ORCH_{name}", raising=False)
        yield


def run(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed."""
    shown, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), pytest.raises(SystemExit) as end:
        main(list(words))
    assert time.monotonic() - started < SECONDS
    return int(end.value.code or 0), shown.getvalue()


def check(content: bytes, backbone: str, name: str = "file") -> set[int]:
    """Import and verify a file; return the exit codes, which must be 0 or 3."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCH_HOME", str(Path(folder, "home")))
        patch.chdir(folder)
        Path(folder, name).write_bytes(content)
        codes = set()
        for command in ("import", "verify"):
            code, shown = run(
                "weights", command, os.path.join(folder, name), "--backbone", backbone, "--width", f"{WIDTH}"
            )
            assert code in (0, 3), shown
            assert "Traceback" not in shown
            assert "weights_only" not in shown
            errors = shown[shown.index("error: ") :] if code else ""
            assert errors.count("\n") <= 1, errors
            assert len(errors) < 2500
            codes.add(code)
        assert {path.name for path in Path(folder).iterdir()} <= {name, "home"}
        assert Path(folder, name).read_bytes() == content
        return codes


@pytest.mark.parametrize("format", FORMATS)
def test_the_files_that_are_damaged_below_are_accepted_as_they_are(valid: dict[str, bytes], format: str) -> None:
    assert check(valid[format], BACKBONE.get(format, "alexnet")) == {0}


@given(data=st.data())
@settings(MANY, max_examples=90)
def test_flipped_bytes_and_truncations_end_in_one_line(valid: dict[str, bytes], data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(FORMATS))
    content = bytearray(valid[format])
    size = len(content)
    near = st.one_of(st.integers(0, min(size, 4096) - 1), st.integers(max(0, size - 4096), size - 1))
    for at in data.draw(st.lists(st.one_of(near, st.integers(0, size - 1)), max_size=8)):
        content[at] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, content[at] ^ 1, content[at] ^ 0x40)))
    if data.draw(st.booleans()):
        del content[data.draw(st.one_of(near, st.integers(0, size - 1))) :]
    check(
        bytes(content), BACKBONE.get(format, "alexnet"), data.draw(st.sampled_from(("file", "x.pth", "x.MAT", "x.gz")))
    )


@st.composite
def tensors(draw: st.DrawFn, like: torch.Tensor) -> torch.Tensor:
    """Draw the tensor itself, or one that differs in shape, type, layout or values."""
    change = draw(st.sampled_from(("none", "none", "none", "type", "shape", "axes", "sparse", "value", "expanded")))
    if change == "type":
        return like.to(draw(KINDS))
    if change == "shape":
        return torch.zeros(draw(st.lists(st.integers(0, 12), max_size=5)))
    if change == "axes":
        return like.permute(*draw(st.permutations(range(like.ndim))))
    if change == "sparse":
        return like.to_sparse()
    if change == "value":
        return torch.full_like(like, draw(st.sampled_from((float("nan"), float("inf"), 0.0, 3e38, 1e-30))))
    return like[:1].expand_as(like) if change == "expanded" else like


LEAVES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5))
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def checkpoints(draw: st.DrawFn) -> Any:
    """Draw what a training script may have saved: state dicts in dicts, beside anything else."""
    state = torchvision_state("alexnet", WIDTH, size=draw(st.sampled_from((0.01, 0.3, 1.0))))
    changed = draw(st.sets(st.sampled_from(sorted(state)), max_size=2))
    prefix = draw(st.sampled_from(PREFIXES))
    content: Any = {
        prefix + key: draw(tensors(value)) if key in changed else value
        for key, value in state.items()
        if key not in changed or draw(st.integers(0, 4))
    }
    for _ in range(draw(st.integers(0, 3))):
        content = {draw(st.sampled_from(WRAPPERS)): content, **draw(st.dictionaries(st.sampled_from(WRAPPERS), JUNK))}
    return draw(st.one_of(st.just(content), st.just(content), st.just(content), JUNK))


@given(content=checkpoints(), is_new=st.booleans())
@settings(MANY, max_examples=60)
def test_any_checkpoint_is_imported_or_its_fault_is_named(content: Any, is_new: bool) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=is_new)
    check(buffer.getvalue(), "alexnet")
