"""Arrays in an uncompressed `.npz` file, viewed in place."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from recsys.model.array_file import ALIGNMENT, view_npz, write_npz

Arrays = dict[str, np.ndarray[Any, Any]]
ARRAYS: Arrays = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a_longer_name": np.arange(3, dtype=np.int64),
    "number": np.float64(0.5) * np.ones(()),
    "empty": np.zeros((0, 4), dtype=np.uint8),
    "last": np.array([7], dtype=np.int32),
}


def write(folder: Path, arrays: Arrays) -> bytes:
    write_npz(folder / "arrays.npz", arrays)
    return (folder / "arrays.npz").read_bytes()


def are_equal(arrays: Arrays, expected: Arrays) -> bool:
    return list(arrays) == list(expected) and all(
        arrays[name].dtype == array.dtype
        and arrays[name].shape == array.shape
        and arrays[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def test_written_arrays_are_read_back_also_by_numpy(tmp_path: Path) -> None:
    content = write(tmp_path, ARRAYS)
    assert are_equal(view_npz(content), ARRAYS)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        assert are_equal(dict(stored), ARRAYS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=arrays_of.arrays(
        st.sampled_from([np.float32, np.float64, np.int32, np.uint8]), arrays_of.array_shapes(min_dims=0, min_side=0)
    )
)
def test_any_numeric_array_is_read_back(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    assert are_equal(view_npz(write(tmp_path, {"it": array})), {"it": array})


def test_arrays_are_aligned_read_only_views(tmp_path: Path) -> None:
    content = write(tmp_path, ARRAYS)
    begin = np.frombuffer(content, dtype=np.uint8).ctypes.data
    for array in view_npz(content).values():
        assert (array.ctypes.data - begin) % ALIGNMENT == 0
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_equal_arrays_yield_identical_bytes(tmp_path: Path) -> None:
    assert write(tmp_path, ARRAYS) == write(tmp_path, ARRAYS)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


ONES = np.ones((2, 3), dtype=np.float32)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 and nothing else", id="no directory"),
        pytest.param(zipped({"a.npy": b""}), id="an empty member"),
        pytest.param(zipped({"a.npy": npy(ONES)[:-1]}), id="truncated"),
        pytest.param(zipped({"a.npy": npy(ONES) + b"\0"}), id="trailing byte"),
        pytest.param(zipped({"a.npy": npy(ONES)}, zipfile.ZIP_DEFLATED), id="compressed"),
        pytest.param(zipped({"a.npy": npy(np.array([{}]), allow_pickle=True)}), id="objects"),
        pytest.param(zipped({"a.npy": npy(np.array(["text"]))}), id="text"),
        pytest.param(zipped({"a.npy": npy(np.asfortranarray(ONES))}), id="Fortran order"),
        pytest.param(zipped({"a.npy": npy(ONES, version=(2, 0))}), id="other version"),
        pytest.param(zipped({"a.npy": npy(ONES).replace(b"(2, 3)", b"(-2,3)")}), id="a negative shape"),
        pytest.param(zipped({"a.npy": npy(ONES).replace(b"(2, 3)", b"(9**9)")}), id="shape is an expression"),
    ],
)
def test_files_that_cannot_be_viewed_raise_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        view_npz(content)


@pytest.mark.filterwarnings("ignore")  # NumPy warns of deprecated types that a damaged header may name
def test_damaged_files_raise_only_value_error(tmp_path: Path) -> None:
    content = write(tmp_path, ARRAYS)
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 2000).tolist():
        damaged = bytearray(content)
        damaged[position] ^= int(generator.integers(1, 256))
        try:
            view_npz(bytes(damaged))
        except ValueError:
            continue
