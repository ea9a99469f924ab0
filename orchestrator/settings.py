"""Paths and defaults, read once from the environment variables `ORCH_...`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator import yaml_text
from schemas.base import nearest
from schemas.errors import SpecError, StoreError
from schemas.profiles import PROFILES
from workers.tracking.access import advice_for, without_password

PREFIX = "ORCH_"
PARCEL = "ORCH_PARCEL"
"""Environment variable of a detached driver that holds what was submitted."""
HOME_FOLDERS = ("artifacts", "cache", "checkpoints", "locks", "logs", "weights")
"""Folders of ORCH_HOME."""
DATABASE = "mlflow.db"
"""File of the embedded store below ORCH_HOME."""
_NOT_IN_URL = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"""What SQLAlchemy decodes in the URL of a database and MLflow, which makes the folder of the database, does not."""


def sqlite_uri(database: Path) -> str:
    """Return the URI by which MLflow opens a SQLite database.

    Raises:
        StoreError: MLflow would open another file, because of a character of the path.
    """
    path = str(database.absolute())
    found = _NOT_IN_URL.search(path)
    if found or "\0" in path or path != os.fsencode(path).decode(errors="replace"):
        what = repr(found[0]) if found else "bytes that are not UTF-8"
        raise StoreError(
            f"The database {path!a} has {what} in its path, which MLflow's database URLs cannot hold. Rename that "
            "folder, or set ORCH_HOME to another one."
        )
    return f"sqlite:///{path}"


_STORE = re.compile(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?://\S.*")
_CLUSTER = re.compile(r"local|auto|([a-z]+://)?\S+:[0-9]+|https?://\S+")
_JOBS = re.compile(r"https?://\S+")
DASHBOARD_PORT = 8265
"""Port of a Ray head's dashboard, and of its jobs API, if nothing else is set."""
_OBJECTS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?|file:///\S+")
_USER_OF_SERVER = re.compile(r"https?://[^/?#]*@")
_LONGEST = 10_000_000
"""Largest number of minutes, about 19 years."""


def _folder(path: Path) -> Path:
    """Require a path that can be resolved."""
    if not str(path).strip():
        raise ValueError("It is blank.")
    try:
        path.expanduser()
    except RuntimeError as error:
        raise ValueError("There is no such home folder.") from error
    return path


def _profile(word: str) -> str:
    """Return the profile that a word names, also in capitals."""
    name = word.strip().lower()
    if name not in PROFILES:
        raise ValueError(nearest(name, PROFILES))
    return name


def _word(value: Any) -> Any:
    """Return a word without regard to capitals."""
    return value.strip().lower() if isinstance(value, str) else value


def _minutes(value: Any) -> float:
    """Return a number that is written as in a sweep file."""
    found = yaml_text.scalar(value)
    if type(found) not in (int, float) or not 0 <= found <= _LONGEST:
        raise ValueError
    return float(found)


def _seconds(value: Any) -> float:
    """Return a number of at least 1 that is written as in a sweep file."""
    found = _minutes(value)
    if found < 1:
        raise ValueError
    return found


class _SecretInUri(ValueError):
    """A URI with credentials in it."""


def _without_credentials(uri: str) -> str:
    """Require a URI without credentials: it is sent to workers, and stands in logs, messages and lists of processes."""
    if without_password(uri) != uri or _USER_OF_SERVER.match(uri):
        raise _SecretInUri("must not hold credentials, because it is logged and sent to workers. Remove them")
    return uri


def _matching(pattern: re.Pattern[str]) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return AfterValidator(check)


Folder = Annotated[Path, AfterValidator(_folder)]


class Settings(BaseSettings):
    """Settings of one process. Every field is an environment variable: `home` is `ORCH_HOME`.

    The description of a field says what its variable takes.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    home: Annotated[Path, Field(description="the path of a folder")] = Path(".orch")
    """Folder of the store, artifacts, prepared images, checkpoints and locks."""
    tracking_uri: Annotated[
        Annotated[str, _matching(_STORE), AfterValidator(_without_credentials)] | None,
        Field(description="the URI of an MLflow server, such as http://host:5000, or of a database: sqlite:///FILE, "
              "postgresql://, mysql:// or mssql://"),
    ] = None  # fmt: skip
    """URI of an MLflow server or database; None for a SQLite store under `home`."""
    data_root: Annotated[Folder | None, Field(description="the path of a folder")] = None
    """Folder of the photographs; None if only generated animals are used."""
    profile: Annotated[str, AfterValidator(_profile), Field(description=f"one of {', '.join(PROFILES)}")] = "laptop"
    """Name of the default profile."""
    ray_address: Annotated[
        str,
        _matching(_CLUSTER),
        AfterValidator(_without_credentials),
        Field(description="`local`, `auto`, or a cluster: HOST:PORT, ray://HOST:PORT, or from a machine outside of it "
              "the address of its dashboard, http://HOST:8265"),
    ] = "local"  # fmt: skip
    """`local` for a private Ray, else the address of a cluster to connect to or, with http, to submit to."""
    ray_jobs_address: Annotated[
        Annotated[str, _matching(_JOBS), AfterValidator(_without_credentials)] | None,
        Field(description="the address of a Ray dashboard, such as http://host:8265"),
    ] = None
    """Where sweeps are submitted to; None derives it from `ray_address`."""
    object_store: Annotated[
        Annotated[str, _matching(_OBJECTS)] | None,
        Field(
            description="the URI of a folder in an S3 store, s3://BUCKET/PREFIX, or of one that all machines mount, "
            "file:///FOLDER"
        ),
    ] = None
    """Where the machines of a cluster share checkpoints and data; None keeps them under `home`."""
    cache_gb: Annotated[
        float,
        BeforeValidator(_minutes),
        Field(description=f"a number of GiB from 0 to {_LONGEST}, such as 50"),
    ] = 50.0
    """Most GiB that pictures from the object store take on a machine; what running jobs use is never removed."""
    features_gb: Annotated[
        float,
        BeforeValidator(_minutes),
        Field(description=f"a number of GiB from 0 to {_LONGEST}, such as 10"),
    ] = 10.0
    """Most GiB that features of frozen layers take on a machine; 0 keeps none."""
    system_metrics_seconds: Annotated[
        float,
        BeforeValidator(_minutes),
        Field(description=f"a number of seconds from 0 to {_LONGEST}, such as 10"),
    ] = 0.0
    """How often each job logs the use of CPU, memory and GPUs of its machine; 0 logs none."""
    store_patience_minutes: Annotated[
        float,
        BeforeValidator(_minutes),
        Field(description=f"a number of minutes from 0 to {_LONGEST}, such as 10"),
    ] = 10.0
    """How long a sweep waits for a store that does not answer before it stops in order."""
    worker_start_seconds: Annotated[
        float,
        BeforeValidator(_seconds),
        Field(description=f"a number of seconds from 1 to {_LONGEST}, such as 120"),
    ] = 120.0
    """How long a worker that has a place on a machine may take to answer before it is replaced."""
    code_check: Annotated[
        Literal["refuse", "warn"], BeforeValidator(_word), Field(description="`refuse` or `warn`")
    ] = "refuse"
    """What becomes of a machine of a cluster whose orch differs from the driver's: no job runs there, or a warning."""
    notify: Annotated[
        SecretStr | None, Field(description="the http address of a web hook, or a command such as `notify-send orch`")
    ] = None
    """Who is told when a sweep ends, is paused or waits long for machines (`orchestrator.execution.notifications`)."""

    def __init__(self, **values: Any) -> None:
        """Read the environment.

        Args:
            values: fields to set in place of their variables.

        Raises:
            SpecError: a variable has a value that it does not take.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explained(error) from error

    @field_validator("home", mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        """Expand `~` in the text, because a path forgets that `./~` began with a dot."""
        return os.path.expanduser(value) if isinstance(value, str) else value

    @cached_property
    def root(self) -> Path:
        """`home` as an absolute path without symbolic links, so that two ways to one folder are one home.

        Raises:
            StoreError: No folder can be there, or it is no place for a home.
        """
        try:
            root = self.home.resolve()
            problem = _unfit(root)
        except FileNotFoundError as error:
            raise StoreError(
                f"ORCH_HOME {str(self.home)!r} begins at the working folder, which was deleted. Change folder."
            ) from error
        except (OSError, RuntimeError) as error:  # a loop of symbolic links, a name that is too long
            root, problem = self.home.absolute(), (isinstance(error, OSError) and error.strerror) or str(error)
        if self.home.parts and self.home.parts[0][:1] == "~" != self.home.parts[0] and not root.exists():
            problem = f"there is no user {self.home.parts[0][1:]!r}, whose home folder it names"
        if problem:
            raise StoreError(f"ORCH_HOME {str(root)!r} cannot be used: {problem}. Set ORCH_HOME to another folder.")
        if not self.tracking_uri:
            sqlite_uri(root / DATABASE)
        return root

    @property
    def database(self) -> Path | None:
        """File of the embedded store; None if `tracking_uri` names another store."""
        return None if self.tracking_uri else self.root / DATABASE

    @property
    def store_uri(self) -> str:
        """URI of the store in use."""
        return self.tracking_uri or sqlite_uri(self.root / DATABASE)

    @property
    def is_outside(self) -> bool:
        """Whether this machine only submits sweeps to the cluster and cannot drive one."""
        return self.ray_address.startswith(("http://", "https://"))

    def resume_command(self, sweep: str) -> str:
        """Return the command that continues a sweep as this process drives or submits it."""
        is_detached = self.is_outside or PARCEL in os.environ
        return f"orch resume {sweep}{' --detach' if is_detached else ''}"

    @property
    def jobs_address(self) -> str | None:
        """Address of the cluster's jobs API; None with a private Ray, which has none."""
        if self.ray_jobs_address or self.ray_address == "local":
            return self.ray_jobs_address
        if self.is_outside:
            return self.ray_address
        host = (
            "127.0.0.1" if self.ray_address == "auto" else urlsplit(f"//{self.ray_address.split('://')[-1]}").hostname
        )
        return f"http://{f'[{host}]' if ':' in str(host) else host}:{DASHBOARD_PORT}"

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


def _explained(error: ValidationError) -> SpecError:
    lines = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]).lower()
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, _SecretInUri):
            advice = advice_for("ray" if name.startswith("ray_") else str(item["input"]))
            lines.append(f"{PREFIX}{name.upper()} {cause}, and {advice}.")
            continue
        value = without_password(str(item["input"]))
        takes = Settings.model_fields[name].description
        why = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
        lines.append(f"{PREFIX}{name.upper()} is {value[:80]!r}, but it takes {takes}.{f' {why}' if why else ''}")
    return SpecError(" ".join(lines))


def misspelt(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each environment variable that looks like a misspelling of ours.

    Args:
        names: names of environment variables.
    """
    known = [field.upper() for field in Settings.model_fields]
    for name in names:
        own = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and own not in known and (near := get_close_matches(own, known, 1, 0.6)):
            yield f"{name} is not a variable of orch and has no effect. Did you mean {PREFIX}{near[0]}?"


def _unfit(root: Path) -> str:
    """Return why a folder cannot be a home; empty if it can."""
    if root == Path(root.anchor):
        return "it is the root of the file system"
    file = next((path for path in (root, *root.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        return f"{'it' if file == root else file} is a file, so a home there cannot be written"
    for parent in root.parents:
        if root.relative_to(parent).parts[0] in HOME_FOLDERS and (parent / DATABASE).is_file():
            return f"it lies in the folder {root.relative_to(parent).parts[0]!r} of the home {parent}"
    return ""
