"""`.npz` files whose arrays are used where they lie: nothing is copied, unpacked or unpickled.

They are what `numpy.savez` writes and `numpy.load` reads, a zip of `.npy` members stored as they are; but each member
is moved to where its numbers are aligned, as zipalign does it, by a longer extra field.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ALIGNMENT: Final = 64
"""Bytes, from the start of the file: a cache line, and what `.npy` headers are padded to."""
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ZIP64_EXTRA_BYTES: Final = 20
_PADDING_ID: Final = 0xD935
"""Of the extra field, as Android's zipalign has it."""
_ARRAY_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<type>[<|](?:f[248]|[iu][1248]))', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9, ]{0,200})\), \} *\n",
    re.DOTALL,
)
"""What `numpy.save` writes for plain numbers. NumPy's own reader takes more, through Python's parser."""


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write numeric arrays under their names; the same arrays make the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            begin = archive.start_dir + _LOCAL_HEADER.size + len(member.filename) + _ZIP64_EXTRA_BYTES + 4
            padding = -begin % ALIGNMENT
            member.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, array, allow_pickle=False)


def view_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file, as read-only views of its bytes.

    Checksums are not looked at: whoever calls this knows the digest of the whole.

    Raises
    ------
    ValueError
        It is no such file, something in it is compressed, of another type than numbers, or not all there.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        return {member.filename.removesuffix(".npy"): _view(content, member) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError) as error:
        raise ValueError(f"This is no .npz file: {error}.") from error


def _view(content: bytes, member: zipfile.ZipInfo) -> NDArray[Any]:
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(content, member.header_offset)
    if signature != _LOCAL_SIGNATURE or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed or not where the zip's directory says.")
    begin = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    end = begin + member.file_size
    header = _ARRAY_HEADER.match(content, begin, min(end, len(content)))
    if header is None:
        raise ValueError(f"{member.filename} does not begin like numbers in the .npy format, version 1.0.")
    shape = tuple(map(int, header["shape"].replace(b",", b" ").split()))
    dtype, count = np.dtype(header["type"].decode()), math.prod(shape)
    if header.end() + count * dtype.itemsize != end or end > len(content):
        raise ValueError(f"{member.filename} holds {end - header.end()} bytes, as {dtype} of shape {shape}.")
    return np.frombuffer(content, dtype, count, header.end()).reshape(shape)
