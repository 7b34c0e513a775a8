"""Arrays of `serving.npz` that do not make a model are rejected, although the manifest matches them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recsys.errors import ArtifactDamaged
from recsys.model import artifact
from recsys.model.array_file import view_npz
from tests.made_models import write_model
from tests.unit.artifact_files import Arrays, change_arrays, example_model, load, signed


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a valid version."""
    folder = tmp_path_factory.mktemp("written")
    write_model(folder, example_model())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def files(written: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a valid version, to be changed."""
    return dict(written)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing else", b"\x80\x04\x95", b"\x93NUMPY"])
def test_files_without_arrays_are_rejected(files: dict[str, bytes], content: bytes) -> None:
    files[artifact.SERVING] = content
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(signed(files))


def test_a_single_npy_array_is_rejected(files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    files[artifact.SERVING] = stream.getvalue()
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(signed(files))


class _RunsWhenUnpickled:
    ran = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _run, ()


def _run() -> None:
    _RunsWhenUnpickled.ran = True


def test_pickled_arrays_are_rejected_without_running_them(files: dict[str, bytes]) -> None:
    payload = np.array([_RunsWhenUnpickled()], dtype=object)
    change_arrays(files, lambda arrays: arrays.update(popularity=payload), allow_pickle=True)
    with pytest.raises(ArtifactDamaged):
        load(signed(files))
    assert not _RunsWhenUnpickled.ran


FLOATS = [
    *("gmf_map", "mlp_map", "mlp_bias_1", "gmf_item", "mlp_item", "mlp_kernel_2", "mlp_bias_2", "output_mlp"),
    *("output_bias", "decay", "popularity", "bounds_centres", "bounds_slack", "bounds_rounding"),
]
ARRAY_NAMES = [
    *FLOATS,
    *("bounds_cluster", "seen_starts", "seen_items", "user_ids", "user_id_starts", "user_id_order"),
    *("item_ids", "item_id_starts", "item_id_order"),
]


def test_array_names_list_every_array(files: dict[str, bytes]) -> None:
    assert sorted(view_npz(files[artifact.SERVING])) == sorted(ARRAY_NAMES)


@pytest.mark.parametrize("name", ARRAY_NAMES)
def test_a_missing_array_is_rejected(files: dict[str, bytes], name: str) -> None:
    change_arrays(files, lambda arrays: arrays.pop(name))
    with pytest.raises(ArtifactDamaged):
        load(signed(files))


@pytest.mark.parametrize("name", ARRAY_NAMES)
@pytest.mark.parametrize(
    "reshape",
    [lambda array: array[:-1], lambda array: array[..., None], lambda _array: np.float32(0), lambda array: array[:0]],
    ids=["one-less", "one-axis-more", "scalar", "empty"],
)
def test_an_array_of_another_shape_is_rejected(files: dict[str, bytes], name: str, reshape: Callable[..., Any]) -> None:
    change_arrays(files, lambda arrays: arrays.update({name: reshape(arrays[name])}))
    with pytest.raises(ArtifactDamaged):
        load(signed(files))


@pytest.mark.parametrize("name", ARRAY_NAMES)
def test_an_array_of_another_type_is_rejected(files: dict[str, bytes], name: str) -> None:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].astype(np.float64 if arrays[name].dtype.itemsize < 8 else np.float32)

    change_arrays(files, change)
    with pytest.raises(ArtifactDamaged, match="are invalid"):
        load(signed(files))


def test_compressed_arrays_are_rejected(files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **view_npz(files[artifact.SERVING]))
    files[artifact.SERVING] = stream.getvalue()
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(signed(files))


@pytest.mark.parametrize(
    ("name", "position", "number"),
    [
        ("seen_items", 0, -1),
        ("seen_items", 0, 4),
        ("seen_starts", 1, 4),
        ("seen_starts", 1, -1),
        ("seen_starts", 0, 1),
        ("bounds_cluster", 0, 1),
        ("item_id_order", 0, 4),
        ("user_id_order", 0, -1),
        ("item_id_starts", 1, 5),
        ("user_id_starts", 0, 1),
        ("item_ids", 0, 0xFF),
    ],
)
def test_indices_and_offsets_out_of_range_are_rejected(
    files: dict[str, bytes], name: str, position: int, number: int
) -> None:
    change_arrays(files, lambda arrays: arrays[name].__setitem__(position, number))
    with pytest.raises(ArtifactDamaged, match="are invalid"):
        load(signed(files))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_rejected(files: dict[str, bytes], name: str, number: float) -> None:
    change_arrays(files, lambda arrays: arrays[name].flat.__setitem__(-1, number))
    with pytest.raises(ArtifactDamaged, match=f"{name} holds numbers that are not finite"):
        load(signed(files))
