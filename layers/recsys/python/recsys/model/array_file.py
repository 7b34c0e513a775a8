"""Write `.npz` files, and read them without a copy, as arrays that are views of the file's bytes.

The files are ordinary `.npz` files, that is, uncompressed zip archives of `.npy` members, and `numpy.load` reads them.
In addition, an extra field pads each member's header so that the numbers of every array are aligned in the file.
Android's zipalign does the same.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ALIGNMENT: Final = 64
"""Alignment of every array from the start of the file, in bytes. It equals the size of a cache line, as in `.npy`
headers."""
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
"""Signature, name length and extra field length of a zip member's local header."""
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ZIP64_EXTRA_BYTES: Final = 20
_PADDING_ID: Final = 0xD935
"""Id of the padding in the extra field. zipalign uses the same id."""
_NPY_VERSION: Final = (1, 0)
_NUMBER_KINDS: Final = "fiu"
"""Floats, signed and unsigned integers. Objects are not permitted, because they would have to be unpickled."""
_HEADER_ERRORS: Final = (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError)
"""Errors of NumPy's `.npy` header parser, which evaluates the header as a Python literal."""


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an `.npz` file of numeric arrays, by name. Equal arrays yield identical files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            begin = archive.start_dir + _LOCAL_HEADER.size + len(member.filename) + _ZIP64_EXTRA_BYTES + 4
            padding = -begin % ALIGNMENT
            member.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, array, allow_pickle=False)


def view_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an uncompressed `.npz` file as views of its bytes.

    The checksums of the zip archive are not verified. Pass only bytes with a verified digest.

    Parameters
    ----------
    content
        The bytes of the whole file, as `write_npz` writes them.

    Returns
    -------
    dict of str to ndarray
        Read-only arrays by name, in the order of the file. As views, the arrays keep `content` in memory.

    Raises
    ------
    ValueError
        The bytes are not a zip archive, a member is compressed or truncated, or a member is not a C-ordered
        array of numbers.

    Examples
    --------
    >>> stream = io.BytesIO()
    >>> np.savez(stream, a=np.arange(3), b=np.ones((2, 2)))
    >>> {name: array.shape for name, array in view_npz(stream.getvalue()).items()}
    {'a': (3,), 'b': (2, 2)}
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        return {member.filename.removesuffix(".npy"): _view_member(content, member) for member in members}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
        EOFError,
    ) as error:  # damaged bytes raise any of these
        raise ValueError(f"Expected an .npz file. Received: {error}.") from error


def _view_member(content: bytes, member: zipfile.ZipInfo) -> NDArray[Any]:
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(content, member.header_offset)
    if signature != _LOCAL_SIGNATURE or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed, or the zip directory has a wrong offset for it.")
    header_begin = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    dtype, shape, begin = _read_npy_header(content, member.filename, header_begin)
    end, count = header_begin + member.file_size, math.prod(shape)
    if begin + count * dtype.itemsize != end or end > len(content):
        raise ValueError(
            f"{member.filename} has {end - begin} bytes of data; its header says {dtype} of shape {shape}."
        )
    return np.frombuffer(content, dtype, count, begin).reshape(shape)


def _read_npy_header(content: bytes, name: str, begin: int) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return the data type and shape of the array `name`, and the offset of its numbers in `content`.

    `begin` is the offset of the `.npy` header in `content`.
    """
    stream = io.BytesIO(content)  # shares the memory of `content`
    stream.seek(begin)
    try:
        version = npy.read_magic(stream)
        if version != _NPY_VERSION:
            raise ValueError(f".npy version {version} is not supported; expected {_NPY_VERSION}.")
        shape, is_fortran_order, dtype = npy.read_array_header_1_0(stream)
    except _HEADER_ERRORS as error:
        raise ValueError(f"{name} has no valid .npy header: {error}") from error
    if dtype.kind not in _NUMBER_KINDS or is_fortran_order:
        raise ValueError(f"{name} must be a C-ordered array of numbers. Received: {dtype}.")
    return dtype, shape, stream.tell()
