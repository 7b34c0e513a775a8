"""Artifacts are read back as written, and damaged ones are rejected."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import ArtifactDamaged
from recsys.model import artifact
from recsys.model.neumf import Network
from recsys.model.recommender import recommend
from recsys.model.vocabulary import Vocabulary
from tests.made_models import random_network, serving_model, write_model
from tests.unit.artifact_files import DIMS, example_model, load, sha256, signed


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


def test_a_written_version_is_read_back(files: dict[str, bytes]) -> None:
    original, model = example_model(), load(files, manifest_sha256=sha256(files[artifact.MANIFEST]))
    assert (model.version, list(model.users), list(model.items)) == (
        "job.7",
        ["u0", "u1", "u2"],
        ["i0", "i1", "i2", "i3"],
    )
    assert [model.seen(user).tolist() for user in range(3)] == [[3, 0], [1], []]
    np.testing.assert_array_equal(model.popularity, original.popularity)
    for name in Network.__slots__:
        np.testing.assert_equal(getattr(model.network, name), getattr(original.network, name))
    for user_id in ("u0", "u1", "u2", "unknown"):
        assert recommend(model, user_id, n=9) == recommend(original, user_id, n=9)


def test_read_folder_needs_no_registry(tmp_path: Path) -> None:
    write_model(tmp_path, example_model())
    assert recommend(artifact.read_folder(tmp_path), "u0", n=9) == recommend(example_model(), "u0", n=9)


def test_only_the_manifest_and_the_arrays_are_read(written: dict[str, bytes]) -> None:
    files = {name: written[name] for name in (artifact.MANIFEST, artifact.SERVING)}
    assert recommend(load(files), "u0", n=9) == recommend(example_model(), "u0", n=9)


def test_arrays_are_views_of_the_file_that_was_read(files: dict[str, bytes]) -> None:
    model = load(files)
    assert model.size_bytes == len(files[artifact.SERVING])
    tables = ("history_gmf", "item_gmf", "history_hidden_1", "item_hidden_1")
    arrays = [getattr(model.network, name) for name in tables]
    arrays += [model.seen_items, model.popularity, model.users.text, model.bounds.slack]
    assert not any(array.flags.owndata for array in arrays)


UNUSUAL_IDS = ["007", "NA", "日本", '"', "\\", "\u2028", "a\tb", " ", "\x7f", "💡" * 100]


def test_ids_in_the_arrays_are_read_back_unchanged(tmp_path: Path) -> None:
    model = replace(example_model(), users=Vocabulary.of(UNUSUAL_IDS[:3]), items=Vocabulary.of(UNUSUAL_IDS[3:7]))
    write_model(tmp_path, model)
    read = artifact.read_folder(tmp_path)
    assert (list(read.users), list(read.items)) == (UNUSUAL_IDS[:3], UNUSUAL_IDS[3:7])


@pytest.mark.parametrize("item_id", UNUSUAL_IDS)
def test_ids_in_the_mappings_are_written_unchanged(tmp_path: Path, item_id: str) -> None:
    artifact.write_mappings(tmp_path, [item_id], [item_id, "other"])
    assert json.loads((tmp_path / artifact.MAPPINGS).read_bytes()) == {
        "format": 2,
        "users": {item_id: 0},
        "items": {item_id: 0, "other": 1},
    }


def test_the_manifest_lists_every_other_file_and_the_shapes(tmp_path: Path) -> None:
    digest = write_model(tmp_path, example_model())
    content = (tmp_path / artifact.MANIFEST).read_bytes()
    manifest = json.loads(content)
    assert digest == sha256(content)
    assert (manifest["format"], manifest["version"]) == (2, "job.7")
    for name in ("model.h5", "mappings.json", "serving.npz", "metrics.json", "interactions.parquet"):
        content = (tmp_path / name).read_bytes()
        listed = {"size_bytes": len(content), "sha256": sha256(content), "parts_sha256": [sha256(content)]}
        assert manifest["files"][name] == listed
    assert len(manifest["files"]) == 5
    assert manifest["shapes"]["gmf_item"] == [4, 2]
    assert manifest["shapes"]["mlp_kernel_2"] == [3, 2]


def test_metrics_that_are_not_finite_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact.write_metrics(tmp_path, {"ndcg_at_20": float("nan")})


# -- damaged files: the manifest is valid, another file differs from it


def test_any_flipped_bit_is_detected(files: dict[str, bytes]) -> None:
    content, name = files[artifact.SERVING], artifact.SERVING
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 200).tolist():
        files[name] = flipped(content, bit)
        with pytest.raises(ArtifactDamaged, match=name):
            load(files)


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_any_flipped_bit_of_the_manifest_differs_from_the_registry_s_digest(files: dict[str, bytes]) -> None:
    content = files[artifact.MANIFEST]
    for bit in range(8 * len(content)):
        with pytest.raises(ArtifactDamaged):
            load(files | {artifact.MANIFEST: flipped(content, bit)}, manifest_sha256=sha256(content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_without_a_registry_a_flipped_bit_of_the_manifest_changes_at_most_the_version_name(
    written: dict[str, bytes], data: st.DataObject
) -> None:
    content = written[artifact.MANIFEST]
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    try:
        model = load(written | {artifact.MANIFEST: flipped(content, bit)})
    except ArtifactDamaged:
        return
    assert recommend(model, "u0", n=9).items == recommend(example_model(), "u0", n=9).items


@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.SERVING])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_detected(files: dict[str, bytes], name: str, share: float) -> None:
    files[name] = files[name][: int(share * len(files[name]))]
    with pytest.raises(ArtifactDamaged):
        load(files)


@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.SERVING])
def test_a_missing_file_is_named(files: dict[str, bytes], name: str, tmp_path: Path) -> None:
    del files[name]
    with pytest.raises(ArtifactDamaged, match=name):
        load(files)
    write_model(tmp_path, example_model())
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactDamaged, match=name) as caught:
        artifact.read_folder(tmp_path)
    assert caught.value.hint == "Pass the directory that `recsys train --out DIR` wrote."


def test_swapped_files_are_detected(files: dict[str, bytes]) -> None:
    files[artifact.MAPPINGS], files[artifact.SERVING] = files[artifact.SERVING], files[artifact.MAPPINGS]
    with pytest.raises(ArtifactDamaged, match=r"The SHA-256 of serving\.npz differs"):
        load(files)


def test_a_file_of_another_version_is_detected(files: dict[str, bytes], tmp_path: Path) -> None:
    write_model(tmp_path, serving_model(random_network(DIMS, seed=1), seen=[[3, 0], [1], []]))
    files[artifact.SERVING] = (tmp_path / artifact.SERVING).read_bytes()
    with pytest.raises(ArtifactDamaged, match=artifact.SERVING):
        load(files)


def test_a_complete_other_version_differs_from_the_registry_s_digest(files: dict[str, bytes], tmp_path: Path) -> None:
    digest = write_model(tmp_path, serving_model(example_model().network, seen=[[3, 0], [1], []], version="job.8"))
    with pytest.raises(ArtifactDamaged, match="differs from the digest in the registry"):
        load(files, manifest_sha256=digest)


def test_every_part_of_a_large_file_has_its_own_digest(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "PART_BYTES", 1000)
    content = files[artifact.SERVING]
    parts = [content[begin : begin + 1000] for begin in range(0, len(content), 1000)]
    assert len(parts) > 2
    assert artifact.describe_file(io.BytesIO(content))["parts_sha256"] == [sha256(part) for part in parts]
    files = signed(files)
    assert recommend(load(files), "u0", n=9) == recommend(example_model(), "u0", n=9)
    swapped = b"".join([parts[1], parts[0], *parts[2:]])
    for damaged in (swapped, content[:-1], content[:1000], content + b"0", flipped(content, 8 * 1500)):
        with pytest.raises(ArtifactDamaged, match=r"The SHA-256 of serving\.npz differs"):
            load(files | {artifact.SERVING: damaged})


# -- invalid manifests


@pytest.mark.parametrize("format_number", [0, 1, 3, "2", None])
def test_another_format_is_rejected_with_a_hint(files: dict[str, bytes], format_number: object) -> None:
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
def test_an_invalid_manifest_is_rejected(files: dict[str, bytes], manifest: bytes) -> None:
    with pytest.raises(ArtifactDamaged):
        load(files | {artifact.MANIFEST: manifest}, manifest_sha256=sha256(manifest))


def test_a_manifest_without_a_version_is_rejected(files: dict[str, bytes]) -> None:
    manifest = json.loads(files[artifact.MANIFEST])
    del manifest["version"]
    with pytest.raises(ArtifactDamaged, match="version"):
        load(files | {artifact.MANIFEST: json.dumps(manifest).encode()})
