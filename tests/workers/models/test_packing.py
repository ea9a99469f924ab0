"""A packed network gives the numbers of the network itself, without any module of orch."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interp_model.trained import TrainedNetwork
from tests.support.toy import SIDE, toy_network, toy_spec
from workers.models.packing import pack

pytestmark = pytest.mark.filterwarnings("ignore")
"""MLflow and torch warn of their own and each other's deprecations while they save a model."""


def trained(labels: tuple[str, ...], loss: Any) -> TrainedNetwork:
    categories = ("voc_part/cat", "voc_part/cow")[: len(labels)]
    network = toy_network(toy_spec(data__categories=categories, loss=loss))
    return TrainedNetwork(network, torch.full((SIDE, SIDE, 3), 60.0), labels, loss)


def png(seed: int, side: int = SIDE) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1).float() / 255


PROBE = """
import base64, json, sys
import mlflow.pyfunc, mlflow.pytorch, pandas as pd, torch
folder, images = sys.argv[1], [base64.b64decode(text) for text in sys.argv[2:]]
module = mlflow.pytorch.load_model(folder)
batch = torch.arange(3 * 3 * 64 * 64).reshape(3, 3, 64, 64) % 256 / 255
model = mlflow.pyfunc.load_model(folder)
answer = {
    "logits": [module(batch[:n]).tolist() for n in (1, 3)],
    "rows": model.predict(pd.DataFrame({"image": images})).to_dict("records"),
    "example": model.predict(model.input_example).to_dict("records"),
    "ours": sorted(name for name in sys.modules if name.partition(".")[0] in ("orch", "workers", "interp_model")),
}
print(json.dumps(answer))
"""


def probe(folder: Path, *images: bytes) -> Any:
    """Use a packed model in a process of its own, outside of the repository."""
    words = [base64.b64encode(image).decode() for image in images]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(folder), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_both_flavours_give_the_network_s_own_numbers_without_orch(tmp_path: Path) -> None:
    network = trained(("voc-cat", "voc-cow"), "softmax")
    pack(network, tmp_path / "model", "run", "m-1")
    images = [png(0), png(1)]
    found = probe(tmp_path / "model", *images)
    assert found["ours"] == []
    batch = torch.arange(3 * 3 * 64 * 64).reshape(3, 3, 64, 64) % 256 / 255
    for n, logits in zip((1, 3), found["logits"], strict=True):
        torch.testing.assert_close(torch.tensor(logits), network(batch[:n]))
    expected = network.probabilities(torch.stack([pixels_of(image) for image in images]))
    for row, probabilities in zip(found["rows"], expected.tolist(), strict=True):
        assert row == pytest.approx(dict(zip(network.labels, probabilities, strict=True)), abs=1e-6)
    assert [set(row) for row in found["example"]] == [{"voc-cat", "voc-cow"}]
