"""Reads MATLAB files of format v5 (through scipy) and v7.3 (HDF5) into the same Python values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data.disk_files import brief, open_regular

Struct = dict[str, Any]

MALFORMED = (ArithmeticError, LookupError, OSError, TypeError, ValueError)
"""Errors of a reader that takes apart what `read_mat` returned, where a file has another content than it expects."""

_VERSION_AT = 124
"""Offset in the header of the two-byte version, in either byte order: 1 in v5, 2 in v7.3."""


def read_mat(path: Path, only: Collection[str] = ()) -> dict[str, Any]:
    """Return the variables of a file.

    A struct becomes a dict, an array of structs or a cell a list in MATLAB's order, text a string, and numbers an array
    with MATLAB's orientation and the stored type.

    Args:
        only: names of the variables to read; empty for all.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a MATLAB file, has another version, or is truncated.
    """
    with open_regular(path) as file:
        header = file.read(_VERSION_AT + 2)
    version = header[_VERSION_AT:]
    if len(version) < 2 or not {1, 2} & set(version):
        raise ValueError("not a MATLAB file of version 5 or 7.3")
    try:
        return _read_hdf5(path, only) if 2 in version else _read_v5(path, only)
    except Exception as error:  # scipy and h5py raise many types on broken files
        raise ValueError(str(error)) from error


def described(error: Exception) -> str:
    """Return why a file cannot be read, briefly."""
    missing = isinstance(error, KeyError) and error.args
    return f"no field {error.args[0]!r}" if missing else str(error) or type(error).__name__


def structs(value: Any) -> list[Struct]:
    """Return the elements of a struct array; a single struct is one element, and an empty matrix has none.

    Raises:
        ValueError: the value is something else.
    """
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and all(isinstance(element, dict) for element in value):
        return value
    if isinstance(value, np.ndarray) and not value.size:
        return []
    raise ValueError(f"expected a struct, found {_kind(value)}")


def text(value: Any) -> str:
    """Return a value that must be text.

    Raises:
        ValueError: the value is something else.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {_kind(value)}")
    return value


def numbers(value: Any) -> NDArray[Any]:
    """Return a value that must be an array of numbers, in the stored type.

    Raises:
        ValueError: the value is something else.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":  # not complex ones or objects
        raise ValueError(f"expected numbers, found {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """Describe a value briefly for a message: a whole network or annotation would fill pages."""
    named = {dict: "a struct", list: "a cell or struct array"}
    return next((name for kind, name in named.items() if isinstance(value, kind)), brief(repr(value)))


def _read_v5(path: Path, only: Collection[str]) -> dict[str, Any]:
    from scipy.io import loadmat  # slow to import, and few jobs read MATLAB files

    found = loadmat(path, variable_names=only or None)
    return {name: _from_v5(value) for name, value in found.items() if not name.startswith("__")}


def _from_v5(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if names := value.dtype.names:
        elements = [{name: _from_v5(element[name]) for name in names} for element in value.ravel(order="F")]
        return elements[0] if len(elements) == 1 else elements
    if value.dtype == object:
        return [_from_v5(item) for item in value.ravel(order="F")]
    return "".join(value.ravel()) if value.dtype.kind == "U" else value


def _read_hdf5(path: Path, only: Collection[str]) -> dict[str, Any]:
    import h5py  # slow to import

    with h5py.File(path, "r") as file:
        wanted = (name for name in file if (name in only if only else not name.startswith("#")))
        return {name: _from_hdf5(file, file[name]) for name in wanted}


def _from_hdf5(file: Any, node: Any) -> Any:
    if isinstance(node, Mapping):  # a group
        members = dict(node.items())
        if members and all(_holds_references(m) and "MATLAB_class" not in m.attrs for m in members.values()):
            # A struct array: every field is a column of references without the class attribute that a cell has.
            rows = zip(*(member[()].ravel() for member in members.values()), strict=True)
            return [{name: _from_hdf5(file, file[at]) for name, at in zip(members, row, strict=True)} for row in rows]
        return {name: _from_hdf5(file, member) for name, member in members.items()}
    kind = bytes(node.attrs.get("MATLAB_class", b"")).decode()
    if node.attrs.get("MATLAB_empty", 0):
        return [] if kind in ("cell", "struct") else "" if kind == "char" else np.empty((0, 0))
    if _holds_references(node):
        return [_from_hdf5(file, file[at]) for at in node[()].ravel()]
    if kind == "char":
        return np.asarray(node[()].ravel(), dtype="<u2").tobytes().decode("utf-16-le")
    return node[()].T  # HDF5 stores MATLAB's columns as rows


def _holds_references(node: Any) -> bool:
    import h5py

    return isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is h5py.Reference
