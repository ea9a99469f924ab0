"""Where things lie and which defaults hold, read once from the environment (`ORCH_...`)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ORCH_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Path(".orch")
    """Store, artifacts, prepared images, checkpoints and locks."""
    tracking_uri: str | None = None
    """An MLflow server or database; None keeps a sqlite store under `home`."""
    data_root: Path | None = None
    """The photographs; None works with generated animals."""
    profile: str = "laptop"
    ray_address: str = "local"
    """`local` starts a private Ray and stops it; anything else joins that cluster."""
    store_patience_minutes: Annotated[float, Field(ge=0)] = 10.0
    """How long a running sweep waits for a store that does not answer, before it is stopped in order."""

    @cached_property
    def root(self) -> Path:
        return self.home.expanduser().resolve()

    @property
    def database(self) -> Path | None:
        """The embedded store's file, or None where another store is named."""
        return None if self.tracking_uri else self.root / "mlflow.db"

    @property
    def store_uri(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifact_uri(self) -> str | None:
        """Where the embedded store keeps files; another store decides for itself."""
        return None if self.tracking_uri else (self.root / "artifacts").as_uri()

    @property
    def cache_dir(self) -> Path:
        return self.root / "cache"

    @property
    def checkpoint_dir(self) -> Path:
        return self.root / "checkpoints"

    @property
    def weights_dir(self) -> Path:
        """Imported weights; no run of theirs makes them again, so nothing deletes them."""
        return self.root / "weights"

    @property
    def log_dir(self) -> Path:
        return self.root / "logs"

    @property
    def lock_dir(self) -> Path:
        return self.root / "locks"
