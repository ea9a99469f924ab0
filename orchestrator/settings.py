"""Paths and defaults, read once from the environment variables `ORCH_...`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one process. Every field is an environment variable: `home` is `ORCH_HOME`."""

    model_config = SettingsConfigDict(env_prefix="ORCH_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Path(".orch")
    """Folder of the store, artifacts, prepared images, checkpoints and locks."""
    tracking_uri: str | None = None
    """URI of an MLflow server or database; None for a SQLite store under `home`."""
    data_root: Path | None = None
    """Folder of the photographs; None if only generated animals are used."""
    profile: str = "laptop"
    """Name of the default profile."""
    ray_address: str = "local"
    """`local` for a private Ray, else the address of a cluster to connect to."""
    store_patience_minutes: Annotated[float, Field(ge=0)] = 10.0
    """How long a sweep waits for a store that does not answer before it stops in order."""

    @cached_property
    def root(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def database(self) -> Path | None:
        """File of the embedded store; None if `tracking_uri` names another store."""
        return None if self.tracking_uri else self.root / "mlflow.db"

    @property
    def store_uri(self) -> str:
        """URI of the store in use."""
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifact_uri(self) -> str | None:
        """Where the embedded store keeps artifacts; None if another store is in use, which decides itself."""
        return None if self.tracking_uri else (self.root / "artifacts").as_uri()

    @property
    def cache_dir(self) -> Path:
        """Prepared images, shared by all jobs of this machine."""
        return self.root / "cache"

    @property
    def checkpoint_dir(self) -> Path:
        """Checkpoints; each job has the folder of its key."""
        return self.root / "checkpoints"

    @property
    def weights_dir(self) -> Path:
        """Imported weights. No run can recreate them, so nothing deletes them."""
        return self.root / "weights"

    @property
    def log_dir(self) -> Path:
        """Logs; each job has the folder of its key."""
        return self.root / "logs"

    @property
    def lock_dir(self) -> Path:
        """File locks of sweeps and jobs."""
        return self.root / "locks"
