"""What a run says of its surroundings: versions of the libraries, the device, and the data set."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from schemas.job import categories_label
from workers.code_home import version_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from schemas.job import JobSpec

LIBRARIES = ("orch", "torch", "ray", "mlflow")
"""Libraries whose versions a run names."""


def surroundings() -> dict[str, str]:
    """Return the tags of the machine that computes: `device`, and `version.torch` and others."""
    import torch

    from workers.training.determinism import choose_device

    device = choose_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, **{f"version.{library}": version_of(library) for library in LIBRARIES}}


def dataset_input(spec: JobSpec) -> DatasetInput:
    """Return the data set of a job as MLflow lists it: equal selections of equal images are one data set."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields = spec.data.model_dump(mode="json")
    dataset = Dataset(
        name=f"{'generated ' if spec.data.images == 'generated' else ''}{categories_label(spec.data.categories, None)}",
        digest=hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:12],
        source_type="orch",
        source=json.dumps({"images": spec.data.images, "digest": spec.data.digest}),
        profile=json.dumps({name: fields[name] for name in ("train_per_category", "test_per_category", "split")}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training and test")])
