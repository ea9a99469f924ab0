"""Weights files in the object store: pushed once by their digest, pulled by machines that lack them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_model.backbones import TORCHVISION_BACKBONES
from schemas.errors import ObjectMissing, WeightsAbsent, WeightsError
from schemas.job import FileWeights
from schemas.model_spec import foreign_name
from schemas.order import ReportPhase
from workers.files import sha256_of
from workers.objects.base import ObjectStore
from workers.objects.waiting import patiently

FOLDER = "pulled"
"""Folder below ORCH_HOME/weights with the files that came from the object store, named by their digests."""


@dataclass(frozen=True)
class SharedWeights:
    """Where a job finds weights files that its machine lacks."""

    store: ObjectStore | None
    """None if no object store is set."""
    weights_dir: Path
    """The machine's folder of imported weights."""
    patience: float
    """Seconds to wait for a store that does not answer."""
    report: ReportPhase

    def file(self, weights: FileWeights) -> Path:
        """Return a weights file: at its path or, if there is none, pulled by its digest.

        Raises:
            WeightsAbsent: this machine lacks the file, and so does the store.
            ObjectDamaged: the store's copy is damaged.
            StoreUnreachable: the store did not answer for too long.
        """
        path = Path(weights.path)
        if path.exists() or not weights.sha256:
            return path
        kept = self.weights_dir / FOLDER / f"{weights.sha256}{path.suffix}"
        is_here = kept.is_file() and sha256_of(kept) == weights.sha256
        if is_here or (self.store is not None and self._pull(file_key(weights.sha256), kept, weights.sha256)):
            return kept
        where = f", and {self.store.where} does not have it" if self.store else ""
        raise WeightsAbsent(
            f"{socket.gethostname()} lacks the weights file {path} (SHA-256 {weights.sha256[:12]}...){where}. Copy it "
            "there, or set ORCH_OBJECT_STORE and run `orch resume` where the file is: it pushes the file."
        )

    def torchvision(self, backbone: str) -> None:
        """Put torchvision's file into torch's cache, if it is in the store and not there yet."""
        target = torchvision_file(backbone)
        if self.store is not None and not target.exists():
            self._pull(torchvision_key(target), target, None)

    def _pull(self, key: str, target: Path, sha256: str | None) -> bool:
        """Download a file once for all processes of this machine. Returns False if the store does not have it."""
        from filelock import FileLock

        store = self.store
        assert store is not None
        target.parent.mkdir(parents=True, exist_ok=True)
        self.report("pulling weights")
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.is_file() and (sha256 is None or sha256_of(target) == sha256):
                return True
            try:
                patiently(
                    lambda: store.get(
                        key,
                        target,
                        sha256,
                        lambda done, total: self.report(f"pulling weights: {done / 1e6:.0f} of {total / 1e6:.0f} MB"),
                    ),
                    self.patience,
                    self.report,
                )
            except ObjectMissing:
                return False
        return True


def file_key(sha256: str) -> str:
    """Return the key of a weights file."""
    return f"weights/{sha256}"


def torchvision_key(path: Path) -> str:
    """Return the key of a file of torchvision's, whose name ends in the first digits of its digest."""
    return f"weights/torchvision/{path.name}"


def torchvision_file(backbone: str) -> Path:
    """Return where torchvision keeps its weights of a backbone on this machine.

    Raises:
        WeightsError: torchvision has none.
    """
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / str(torchvision_weights(backbone).url).rsplit("/", 1)[-1]


def torchvision_weights(backbone: str) -> Any:
    """Return the weights that torchvision recommends for a backbone, as its API has them.

    Raises:
        WeightsError: torchvision has none.
    """
    from torchvision.models import get_model_weights

    name = foreign_name(backbone)
    network = name.network if name and name.source == "torchvision" else backbone
    if name is None and backbone not in TORCHVISION_BACKBONES:
        raise WeightsError(
            f"torchvision has no weights for {backbone}, only for {', '.join(TORCHVISION_BACKBONES)}, and for its own "
            "networks (torchvision:NAME@LAYER). Set `weights.source: pretrain`, or `file` with a path."
        )
    try:
        return get_model_weights(network).DEFAULT
    except (AttributeError, ValueError) as error:
        raise WeightsError(
            f"torchvision has no weights for {network}. Set `weights.source: pretrain`, or `file` with a path."
        ) from error


def push_file(store: ObjectStore, weights: FileWeights) -> int:
    """Put a weights file into the store under its digest, if it is not there. Returns the bytes that were sent.

    Raises:
        WeightsError: the file is neither here nor in the store.
        ObjectDamaged: the file has changed since it was planned.
        StoreError: the store does not answer, or refuses.
    """
    path, key = Path(weights.path), file_key(weights.sha256)
    if store.size(key) is not None:
        return 0
    if not path.is_file():
        raise WeightsError(
            f"The weights file {path} (SHA-256 {weights.sha256[:12]}...) is neither on this machine nor in "
            f"{store.where}. Run the command where the file is."
        )
    store.put(key, path, weights.sha256)
    return path.stat().st_size


def push_torchvision(store: ObjectStore, backbone: str) -> int:
    """Put this machine's copy of torchvision's weights into the store, if there is one and the store lacks it.

    Returns:
        The bytes that were sent.
    """
    path = torchvision_file(backbone)
    if not path.is_file() or store.size(torchvision_key(path)) is not None:
        return 0
    store.put(torchvision_key(path), path, sha256_of(path))
    return path.stat().st_size
