"""Classifies encoded images with a packed network.

This file is copied into every packed model and runs there as MLflow's loader module, so it imports nothing of orch.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

PROGRAM = "model.pt2"
"""File of the exported network, as MLflow's PyTorch flavour names it: RGB images from 0 to 1 in, logits out."""
FACTS = "classifier.json"
"""File beside it: `labels` of the outputs, `loss`, and `input_size` in pixels."""


class Classifier:
    """A network that takes the bytes of image files."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: has PROGRAM and FACTS.
        """
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.labels: list[str] = facts["labels"]
        self._side = int(facts["input_size"])
        self._is_softmax = facts["loss"] == "softmax"
        self._network = torch.export.load(folder / PROGRAM).module()

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the probability of each label: a row per image.

        Args:
            model_input: the column `image` has the bytes of image files, such as JPEG or PNG.
            params: unused; MLflow passes it.

        Raises:
            ValueError: an image cannot be decoded, or has pixels of more than eight bits.
        """
        images_N3SS = torch.stack([self._decoded(content) for content in model_input["image"]])
        with torch.no_grad():
            logits_NO = self._network(images_N3SS)
        probability_NO = logits_NO.softmax(dim=1) if self._is_softmax else logits_NO.sigmoid()
        return pd.DataFrame(probability_NO.double().numpy(), columns=self.labels)

    def _decoded(self, content: bytes) -> torch.Tensor:
        """Return an image upright and resized to the square input: (3, S, S), 0 to 1."""
        try:
            with Image.open(io.BytesIO(content)) as picture:
                if picture.mode[0] in "IF":
                    raise ValueError(f"An image has pixels of mode {picture.mode}. Send 8-bit images.")
                upright = ImageOps.exif_transpose(picture).convert("RGB")
        except OSError as error:
            raise ValueError(f"An image cannot be decoded ({error}). Send the bytes of a JPEG or PNG file.") from error
        resized_SS3 = np.array(upright.resize((self._side, self._side), Image.Resampling.BILINEAR))
        return torch.from_numpy(resized_SS3).permute(2, 0, 1).float() / 255


def _load_pyfunc(data_path: str) -> Classifier:
    """Load the model; MLflow calls this by its name."""
    return Classifier(Path(data_path))
