"""Arrays in a zip that are used where they lie."""

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
SOME: Arrays = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a_longer_name": np.arange(3, dtype=np.int64),
    "number": np.float64(0.5) * np.ones(()),
    "empty": np.zeros((0, 4), dtype=np.uint8),
    "last": np.array([7], dtype=np.int32),
}


def written(folder: Path, arrays: Arrays) -> bytes:
    write_npz(folder / "arrays.npz", arrays)
    return (folder / "arrays.npz").read_bytes()


def same(got: Arrays, expected: Arrays) -> bool:
    return list(got) == list(expected) and all(
        got[name].dtype == array.dtype and got[name].shape == array.shape and got[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def test_what_was_written_is_seen_again_also_by_numpy(tmp_path: Path) -> None:
    content = written(tmp_path, SOME)
    assert same(view_npz(content), SOME)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        assert same(dict(stored), SOME)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=arrays_of.arrays(
        st.sampled_from([np.float32, np.float64, np.int32, np.uint8]), arrays_of.array_shapes(min_dims=0, min_side=0)
    )
)
def test_any_numbers_come_back(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    assert same(view_npz(written(tmp_path, {"it": array})), {"it": array})


def test_arrays_are_aligned_views_that_nobody_can_change(tmp_path: Path) -> None:
    content = written(tmp_path, SOME)
    begin = np.frombuffer(content, dtype=np.uint8).ctypes.data
    for array in view_npz(content).values():
        assert (array.ctypes.data - begin) % ALIGNMENT == 0
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_the_same_arrays_make_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, SOME) == written(tmp_path, SOME)


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
        pytest.param(b"", id="nothing"),
        pytest.param(b"PK\x03\x04 and nothing else", id="no directory"),
        pytest.param(zipped({"a.npy": b""}), id="an empty member"),
        pytest.param(zipped({"a.npy": npy(ONES)[:-1]}), id="a byte too few"),
        pytest.param(zipped({"a.npy": npy(ONES) + b"\0"}), id="a byte too many"),
        pytest.param(zipped({"a.npy": npy(ONES)}, zipfile.ZIP_DEFLATED), id="compressed"),
        pytest.param(zipped({"a.npy": npy(np.array([{}]), allow_pickle=True)}), id="objects"),
        pytest.param(zipped({"a.npy": npy(np.array(["text"]))}), id="text"),
        pytest.param(zipped({"a.npy": npy(np.asfortranarray(ONES))}), id="columns first"),
        pytest.param(zipped({"a.npy": npy(ONES, version=(2, 0))}), id="another version"),
        pytest.param(zipped({"a.npy": npy(ONES).replace(b"(2, 3)", b"(-2,3)")}), id="a negative shape"),
        pytest.param(zipped({"a.npy": npy(ONES).replace(b"(2, 3)", b"(9**9)")}), id="no shape"),
    ],
)
def test_what_cannot_be_used_where_it_lies_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        view_npz(content)


def test_no_damage_gives_another_error_than_a_refusal(tmp_path: Path) -> None:
    content = written(tmp_path, SOME)
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(content), 2000).tolist():
        damaged = bytearray(content)
        damaged[place] ^= int(generator.integers(1, 256))
        try:
            view_npz(bytes(damaged))
        except ValueError:
            continue
