"""Reads struct arrays of MATLAB files alike from both formats, v5 (scipy) and v7.3 (HDF5): the content says which."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = str | NDArray[np.float64] | list[dict[str, "Value"]]
"""Text, numbers as MATLAB orients them, or a struct array, which a single struct is too."""
Struct = dict[str, Value]

_VERSION_AT = 124
"""Byte of a MATLAB file's header where its version stands: 1 in v5, 2 in v7.3; little- or big-endian."""


def read_structs(path: Path, variable: str) -> list[Struct]:
    """The elements of a variable that is a struct array.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no MATLAB file, is cut off, or has no such struct array.
    """
    found = _read_hdf5(path, variable) if is_hdf5(path) else _read_v5(path, variable)
    if not isinstance(found, list):
        raise ValueError(f"`{variable}` is no struct array")
    return found


def is_hdf5(path: Path) -> bool:
    """Whether a file says that it is of v7.3."""
    with path.open("rb") as file:
        header = file.read(_VERSION_AT + 4)
    if len(header) < _VERSION_AT + 4:
        raise ValueError(f"{len(header)} bytes are no MATLAB file")
    return 2 in header[_VERSION_AT : _VERSION_AT + 2]


def numbers(value: Value) -> NDArray[np.float64]:
    """The value as numbers; the authors write some as text (`int2str`) and some as bytes."""
    if isinstance(value, str):
        return np.array(value.split(), dtype=np.float64)
    if isinstance(value, list):
        raise ValueError("a struct where numbers should be")
    return value


def number(value: Value) -> float:
    (only,) = numbers(value).ravel()
    return float(only)


def text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text should be")
    return value


def structs(value: Value) -> list[Struct]:
    """The elements of a nested struct array; none where MATLAB has an empty matrix."""
    if isinstance(value, list):
        return value
    if np.size(value) and len(value):
        raise ValueError(f"{value!r} where a struct should be")
    return []


def _read_v5(path: Path, variable: str) -> Value:
    from scipy.io import loadmat  # slow to import, and most jobs read no MATLAB file
    from scipy.io.matlab import MatReadError

    try:
        return _from_scipy(loadmat(path)[variable])
    except KeyError:
        raise ValueError(f"no variable `{variable}`") from None
    except (MatReadError, TypeError, NotImplementedError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _from_scipy(array: Any) -> Value:
    if array.dtype.names:
        return [{name: _from_scipy(element[name]) for name in array.dtype.names} for element in array.ravel(order="F")]
    if array.dtype.kind == "U":
        return "".join(array.ravel())
    # Small whole numbers are stored as bytes, whose sums would wrap around at 256.
    return np.asarray(array, dtype=np.float64)


def _read_hdf5(path: Path, variable: str) -> Value:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _from_hdf5(file, file[variable])
    except KeyError:
        raise ValueError(f"no variable `{variable}`") from None
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error


def _from_hdf5(file: Any, node: Any) -> Value:
    import h5py

    if isinstance(node, h5py.Group):
        members = {name: node[name] for name in node}
        if all(_is_column(member) for member in members.values()):
            # A struct array: every field is a column of references, one to each element's value.
            columns = {name: member[()].ravel() for name, member in members.items()}
            rows = zip(*columns.values(), strict=True)
            return [{name: _from_hdf5(file, file[at]) for name, at in zip(columns, row, strict=True)} for row in rows]
        return [{name: _from_hdf5(file, member) for name, member in members.items()}]
    kind = bytes(node.attrs.get("MATLAB_class", b"")).decode()
    if node.attrs.get("MATLAB_empty", 0):
        return "" if kind == "char" else np.empty((0, 0))
    if kind == "char":
        return "".join(map(chr, node[()].ravel()))
    return np.asarray(node[()].T, dtype=np.float64)  # HDF5 has MATLAB's columns as rows


def _is_column(member: Any) -> bool:
    import h5py

    return (
        isinstance(member, h5py.Dataset)
        and h5py.check_ref_dtype(member.dtype) is h5py.Reference
        and "MATLAB_class" not in member.attrs
    )
