"""What a packed network consists of: an exported program, a loader of images, a signature and an example."""

from __future__ import annotations

import io
import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image

from interp_model.trained import TrainedNetwork
from workers.models import orch_classifier

LIBRARIES = ("torch", "numpy", "pandas", "pillow")
"""What a packed model needs beside MLflow."""
_EXAMPLES = 2
"""Images with which a network is exported; with one, the export would take no more."""


def pack(network: TrainedNetwork, folder: Path, run_id: str, model_id: str) -> None:
    """Write a network as an MLflow model with two flavours; neither needs orch.

    `mlflow.pytorch.load_model` gives a module as of `TrainedNetwork`: images in, logits out. `mlflow.pyfunc.load_model`
    and `mlflow models serve` take the bytes of image files and give probabilities by label.

    Args:
        network: the network, which is moved to the CPU.
        folder: the folder to create.
        run_id: MLflow run of the job.
        model_id: MLflow's logged model that the folder is for.
    """
    import mlflow.pyfunc
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    needs = [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", *LIBRARIES)]
    model = Model(run_id=run_id, model_id=model_id)
    with TemporaryDirectory(prefix="orch-") as scratch:
        exported = Path(scratch) / "exported"
        pytorch = _export(network, exported, needs)
        data = exported / pytorch["model_data"]
        facts = {"labels": network.labels, "loss": network.loss, "input_size": network.input_size}
        (data / orch_classifier.FACTS).write_text(json.dumps(facts))
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=orch_classifier.__name__.rpartition(".")[2],
            data_path=str(data),
            code_paths=[orch_classifier.__file__],
            mlflow_model=model,
            signature=ModelSignature(
                Schema([ColSpec(DataType.binary, "image")]),
                Schema([ColSpec(DataType.double, label) for label in network.labels]),
            ),
            input_example=pd.DataFrame({"image": [_mean_image(network)]}),
            pip_requirements=needs,
        )
    place = model.flavors["python_function"]["data"]
    model.add_flavor("pytorch", **(pytorch | {"model_data": place}))
    model.save(str(folder / "MLmodel"))


def _export(network: TrainedNetwork, folder: Path, needs: list[str]) -> dict[str, str]:
    """Write the exported program, and return the configuration of its flavour."""
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    model, side, number = Model(), network.input_size, np.dtype("float32")
    mlflow.pytorch.save_model(
        network.cpu().requires_grad_(False),
        str(folder),
        mlflow_model=model,
        input_example=torch.zeros(_EXAMPLES, 3, side, side),
        signature=ModelSignature(
            Schema([TensorSpec(number, (-1, 3, side, side))]), Schema([TensorSpec(number, (-1, len(network.labels)))])
        ),
        serialization_format="pt2",
        pip_requirements=needs,
    )
    return dict(model.flavors["pytorch"])


def _mean_image(network: TrainedNetwork) -> bytes:
    """Return the mean image of the training set as a PNG file."""
    pixels_SS3 = network.mean_SS3.round().clamp(0, 255).byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels_SS3).save(file, "PNG")
    return file.getvalue()
