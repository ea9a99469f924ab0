"""Reads whole MATLAB files of either format, v5 and v7.3, cells included, numbers in the precision they were saved in.

`workers.data.matfile` reads annotations: one struct array, all numbers as doubles. Networks are cells of singles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import mat_struct

from schemas.errors import WeightsError

V73_MAGIC = b"MATLAB 7.3 MAT-file"
V5_MAGIC = b"MATLAB 5.0 MAT-file"


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a file: structs as dicts, cells and arrays of structs as lists, text as strings, else arrays.

    Raises:
        WeightsError: no MAT file, of another version, or cut short.
    """
    with open(path, "rb") as file:
        head = file.read(len(V73_MAGIC))
    try:
        if head == V73_MAGIC:
            with h5py.File(path) as hdf5:
                return {name: _from_hdf5(hdf5, value) for name, value in hdf5.items() if not name.startswith("#")}
        if head == V5_MAGIC:
            found = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=False)
            return {name: _from_v5(value) for name, value in found.items() if not name.startswith("__")}
    except Exception as error:  # scipy and h5py raise whatever their parsers stumble over
        raise WeightsError(f"{path} is a broken MATLAB file ({error}). Download or copy it again.") from error
    raise WeightsError(f"{path} is no MATLAB file of version 5 or 7.3. In MATLAB, `save -v7` or `-v7.3` writes one.")


def _from_v5(value: Any) -> Any:
    if isinstance(value, mat_struct):
        return {name: _from_v5(getattr(value, name)) for name in value._fieldnames}
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object:
        items = [_from_v5(item) for item in value.ravel(order="F")]
        is_struct = len(items) == 1 and isinstance(value.ravel()[0], mat_struct)
        return items[0] if is_struct else items
    if value.dtype.kind in "US":
        return str(value.ravel()[0]) if value.size else ""
    return value


def _from_hdf5(file: h5py.File, value: Any) -> Any:
    if isinstance(value, h5py.Group):
        fields = {name: _from_hdf5(file, item) for name, item in value.items()}
        if fields and all(_is_field_of_array(item) for item in value.values()):
            return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
        return fields
    kind = value.attrs.get("MATLAB_class", b"").decode()
    if "MATLAB_empty" in value.attrs:
        return [] if kind == "cell" else "" if kind == "char" else np.zeros(0)
    if value.dtype == h5py.ref_dtype:
        return [_from_hdf5(file, file[reference]) for reference in value[()].ravel()]
    content = value[()]
    if kind == "char":
        return "".join(map(chr, content.ravel()))
    return content.T  # HDF5 counts rows first, MATLAB columns


def _is_field_of_array(item: Any) -> bool:
    """An array of structs is stored as one: each field a list of references, which unlike a cell bears no class."""
    return isinstance(item, h5py.Dataset) and item.dtype == h5py.ref_dtype and "MATLAB_class" not in item.attrs
