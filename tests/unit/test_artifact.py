"""The artifact: what is written is read again, and whatever is damaged is refused."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import ArtifactDamaged, ObjectNotFound
from recsys.model import artifact
from recsys.model.array_file import view_npz
from recsys.model.neumf import Dims, Network
from recsys.model.recommender import ServingModel, recommend
from recsys.model.vocabulary import Vocabulary
from tests.made_models import random_network, serving_model, write_model

DIMS = Dims(n_users=3, n_items=4, gmf_dim=2, mlp_dim=2, hidden_dims=(3, 2))
Arrays = dict[str, np.ndarray[Any, Any]]


def made_model() -> ServingModel:
    return serving_model(random_network(DIMS), seen=[[3, 0], [1], []], version="job.7")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a good version."""
    folder = tmp_path_factory.mktemp("written")
    write_model(folder, made_model())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def files(written: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a good version, to be damaged."""
    return dict(written)


def load(files: dict[str, bytes], *, manifest_sha256: str | None = None) -> ServingModel:
    def read(name: str) -> bytes:
        if name not in files:
            raise ObjectNotFound(f"There is no object named {name!r}.")
        return files[name]

    return artifact.read_model(read, manifest_sha256=manifest_sha256)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def signed(files: dict[str, bytes], **members: Any) -> dict[str, bytes]:
    """The same files under a manifest that is true of them: what a wrong writer could publish."""
    manifest = json.loads(files[artifact.MANIFEST])
    manifest["files"] = {name: artifact.describe_file(io.BytesIO(files[name])) for name in artifact.LISTED_FILES}
    return files | {artifact.MANIFEST: json.dumps(manifest | members).encode()}


def with_arrays(files: dict[str, bytes], change: Callable[[Arrays], Any], *, allow_pickle: bool = False) -> None:
    with np.load(io.BytesIO(files[artifact.SERVING])) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=allow_pickle, **arrays)
    files[artifact.SERVING] = stream.getvalue()


def test_what_was_written_is_read_again(files: dict[str, bytes]) -> None:
    original, model = made_model(), load(files, manifest_sha256=sha256(files[artifact.MANIFEST]))
    assert (model.version, list(model.users), list(model.items)) == (
        "job.7",
        ["u0", "u1", "u2"],
        ["i0", "i1", "i2", "i3"],
    )
    assert [model.seen(user).tolist() for user in range(3)] == [[3, 0], [1], []]
    np.testing.assert_array_equal(model.popularity, original.popularity)
    for name in Network.__slots__:
        np.testing.assert_equal(getattr(model.network, name), getattr(original.network, name))
    for user_id in ("u0", "u1", "u2", "nobody"):
        assert recommend(model, user_id, n=9) == recommend(original, user_id, n=9)


def test_a_folder_is_read_without_a_registry(tmp_path: Path) -> None:
    write_model(tmp_path, made_model())
    assert recommend(artifact.read_folder(tmp_path), "u0", n=9) == recommend(made_model(), "u0", n=9)


def test_a_server_reads_the_manifest_and_the_arrays_alone(written: dict[str, bytes]) -> None:
    needed = {name: written[name] for name in (artifact.MANIFEST, artifact.SERVING)}
    assert recommend(load(needed), "u0", n=9) == recommend(made_model(), "u0", n=9)


def test_a_model_takes_the_memory_of_the_one_file_it_was_read_from(files: dict[str, bytes]) -> None:
    model = load(files)
    assert model.size_bytes == len(files[artifact.SERVING])
    arrays = [getattr(model.network, name) for name in ("history_gmf", "item_gmf", "history_hidden_1", "item_hidden_1")]
    arrays += [model.seen_items, model.popularity, model.users.text, model.bounds.slack]
    assert not any(array.flags.owndata for array in arrays)


ODD_IDS = ["007", "NA", "日本", '"', "\\", "\u2028", "a\tb", " ", "\x7f", "💡" * 100]


def test_ids_come_back_from_the_arrays_character_for_character(tmp_path: Path) -> None:
    model = replace(made_model(), users=Vocabulary.of(ODD_IDS[:3]), items=Vocabulary.of(ODD_IDS[3:7]))
    write_model(tmp_path, model)
    read = artifact.read_folder(tmp_path)
    assert (list(read.users), list(read.items)) == (ODD_IDS[:3], ODD_IDS[3:7])


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_ids_come_back_character_for_character(tmp_path: Path, item_id: str) -> None:
    artifact.write_mappings(tmp_path, [item_id], [item_id, "other"])
    assert json.loads((tmp_path / artifact.MAPPINGS).read_bytes()) == {
        "format": 2,
        "users": {item_id: 0},
        "items": {item_id: 0, "other": 1},
    }


def test_the_manifest_lists_every_other_file_and_the_shapes(tmp_path: Path) -> None:
    digest = write_model(tmp_path, made_model())
    content = (tmp_path / artifact.MANIFEST).read_bytes()
    manifest = json.loads(content)
    assert digest == sha256(content)
    assert (manifest["format"], manifest["version"]) == (2, "job.7")
    for name in ("model.h5", "mappings.json", "serving.npz", "metrics.json"):
        content = (tmp_path / name).read_bytes()
        listed = {"size_bytes": len(content), "sha256": sha256(content), "parts_sha256": [sha256(content)]}
        assert manifest["files"][name] == listed
    assert len(manifest["files"]) == 4
    assert manifest["shapes"]["gmf_item"] == [4, 2]
    assert manifest["shapes"]["mlp_kernel_2"] == [3, 2]


def test_metrics_cannot_hold_what_json_has_no_word_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact.write_metrics(tmp_path, {"ndcg_at_20": float("nan")})


# -- damage on the way: the manifest is true, a file is not


def test_any_flipped_bit_is_noticed(files: dict[str, bytes]) -> None:
    content, name = files[artifact.SERVING], artifact.SERVING
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 200).tolist():
        files[name] = flipped(content, bit)
        with pytest.raises(ArtifactDamaged, match=name):
            load(files)


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_any_flipped_bit_of_the_manifest_differs_from_what_the_registry_names(files: dict[str, bytes]) -> None:
    content = files[artifact.MANIFEST]
    for bit in range(8 * len(content)):
        with pytest.raises(ArtifactDamaged):
            load(files | {artifact.MANIFEST: flipped(content, bit)}, manifest_sha256=sha256(content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_without_a_registry_a_flipped_bit_of_the_manifest_can_at_most_change_the_versions_name(
    written: dict[str, bytes], data: st.DataObject
) -> None:
    content = written[artifact.MANIFEST]
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    try:
        model = load(written | {artifact.MANIFEST: flipped(content, bit)})
    except ArtifactDamaged:
        return
    assert recommend(model, "u0", n=9).items == recommend(made_model(), "u0", n=9).items


@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.SERVING])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_noticed(files: dict[str, bytes], name: str, share: float) -> None:
    files[name] = files[name][: int(share * len(files[name]))]
    with pytest.raises(ArtifactDamaged):
        load(files)


@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.SERVING])
def test_a_missing_file_is_named(files: dict[str, bytes], name: str, tmp_path: Path) -> None:
    del files[name]
    with pytest.raises(ArtifactDamaged, match=name):
        load(files)
    write_model(tmp_path, made_model())
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactDamaged, match=name) as caught:
        artifact.read_folder(tmp_path)
    assert caught.value.hint == "Give the directory that `recsys train --out DIR` wrote."


def test_files_that_changed_places_are_noticed(files: dict[str, bytes]) -> None:
    files[artifact.MAPPINGS], files[artifact.SERVING] = files[artifact.SERVING], files[artifact.MAPPINGS]
    with pytest.raises(ArtifactDamaged, match="SHA-256 differs"):
        load(files)


def test_a_file_of_another_version_is_noticed(files: dict[str, bytes], tmp_path: Path) -> None:
    write_model(tmp_path, serving_model(random_network(DIMS, seed=1), seen=[[3, 0], [1], []]))
    files[artifact.SERVING] = (tmp_path / artifact.SERVING).read_bytes()
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(files)


def test_a_whole_other_version_is_not_the_one_the_registry_names(files: dict[str, bytes], tmp_path: Path) -> None:
    digest = write_model(tmp_path, serving_model(made_model().network, seen=[[3, 0], [1], []], version="job.8"))
    with pytest.raises(ArtifactDamaged, match="not the one the registry names"):
        load(files, manifest_sha256=digest)


def test_every_part_of_a_large_file_has_a_digest_of_its_own(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "PART_BYTES", 1000)
    content = files[artifact.SERVING]
    parts = [content[begin : begin + 1000] for begin in range(0, len(content), 1000)]
    assert len(parts) > 2
    assert artifact.describe_file(io.BytesIO(content))["parts_sha256"] == [sha256(part) for part in parts]
    files = signed(files)
    assert recommend(load(files), "u0", n=9) == recommend(made_model(), "u0", n=9)
    swapped = b"".join([parts[1], parts[0], *parts[2:]])
    for damaged in (swapped, content[:-1], content[:1000], content + b"0", flipped(content, 8 * 1500)):
        with pytest.raises(ArtifactDamaged, match="SHA-256 differs"):
            load(files | {artifact.SERVING: damaged})


# -- a wrong writer: the manifest is true of files that make no model


@pytest.mark.parametrize("format_number", [0, 1, 3, "2", None])
def test_another_format_is_refused_with_the_mend(files: dict[str, bytes], format_number: object) -> None:
    with pytest.raises(ArtifactDamaged, match="this program reads format 2") as caught:
        load(signed(files, format=format_number))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Train again")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 2}',
        b'{"format": 2, "files": []}',
        b'{"format": 2, "files": null}',
    ],
)
def test_a_manifest_that_is_none_is_refused(files: dict[str, bytes], manifest: bytes) -> None:
    with pytest.raises(ArtifactDamaged):
        load(files | {artifact.MANIFEST: manifest}, manifest_sha256=sha256(manifest))


def test_a_manifest_that_names_no_version_is_refused(files: dict[str, bytes]) -> None:
    manifest = json.loads(files[artifact.MANIFEST])
    del manifest["version"]
    with pytest.raises(ArtifactDamaged, match="version"):
        load(files | {artifact.MANIFEST: json.dumps(manifest).encode()})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing else", b"\x80\x04\x95", b"\x93NUMPY"])
def test_arrays_that_are_none_are_refused(files: dict[str, bytes], content: bytes) -> None:
    files[artifact.SERVING] = content
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(signed(files))


def test_one_plain_array_in_the_place_of_all_is_refused(files: dict[str, bytes]) -> None:
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


def test_pickled_arrays_are_refused_without_running_them(files: dict[str, bytes]) -> None:
    payload = np.array([_RunsWhenUnpickled()], dtype=object)
    with_arrays(files, lambda arrays: arrays.update(popularity=payload), allow_pickle=True)
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


def test_every_array_is_tested(files: dict[str, bytes]) -> None:
    assert sorted(view_npz(files[artifact.SERVING])) == sorted(ARRAY_NAMES)


@pytest.mark.parametrize("name", ARRAY_NAMES)
def test_a_missing_array_is_refused(files: dict[str, bytes], name: str) -> None:
    with_arrays(files, lambda arrays: arrays.pop(name))
    with pytest.raises(ArtifactDamaged):
        load(signed(files))


@pytest.mark.parametrize("name", ARRAY_NAMES)
@pytest.mark.parametrize(
    "reshape",
    [lambda array: array[:-1], lambda array: array[..., None], lambda _array: np.float32(0), lambda array: array[:0]],
    ids=["one-less", "one-axis-more", "a-number", "empty"],
)
def test_an_array_of_another_shape_is_refused(files: dict[str, bytes], name: str, reshape: Callable[..., Any]) -> None:
    with_arrays(files, lambda arrays: arrays.update({name: reshape(arrays[name])}))
    with pytest.raises(ArtifactDamaged):
        load(signed(files))


@pytest.mark.parametrize("name", ARRAY_NAMES)
def test_an_array_of_another_type_is_refused(files: dict[str, bytes], name: str) -> None:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].astype(np.float64 if arrays[name].dtype.itemsize < 8 else np.float32)

    with_arrays(files, change)
    with pytest.raises(ArtifactDamaged, match="do not fit together"):
        load(signed(files))


def test_compressed_arrays_are_refused(files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **view_npz(files[artifact.SERVING]))
    files[artifact.SERVING] = stream.getvalue()
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(signed(files))


@pytest.mark.parametrize(
    ("name", "place", "number"),
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
def test_rows_and_places_outside_what_they_point_into_are_refused(
    files: dict[str, bytes], name: str, place: int, number: int
) -> None:
    with_arrays(files, lambda arrays: arrays[name].__setitem__(place, number))
    with pytest.raises(ArtifactDamaged, match="do not fit together"):
        load(signed(files))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(files: dict[str, bytes], name: str, number: float) -> None:
    with_arrays(files, lambda arrays: arrays[name].flat.__setitem__(-1, number))
    with pytest.raises(ArtifactDamaged, match=f"{name} in serving.npz holds numbers that are not finite"):
        load(signed(files))
