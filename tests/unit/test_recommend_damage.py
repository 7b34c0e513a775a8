"""Damaged model files: they are rejected, logged and counted, and the previous version serves requests meanwhile."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.keys.api_key import ApiKey
from recsys.model.artifact import MANIFEST, MAPPINGS, SERVING
from recsys.objects import layout
from tests.unit.http_fakes import Service, assert_problem, eventually, publish, sha256

pytestmark = pytest.mark.slow

Contents = dict[str, bytes]
Arrays = dict[str, NDArray[Any]]


# -- the stored files differ from the published ones


def flipped(name: str, position: float) -> Callable[[Contents], None]:
    def spoil(stored: Contents) -> None:
        content = bytearray(stored[name])
        content[int(position * (len(content) - 1))] ^= 1
        stored[name] = bytes(content)

    return spoil


def cut(name: str, kept: float) -> Callable[[Contents], None]:
    def spoil(stored: Contents) -> None:
        stored[name] = stored[name][: int(kept * len(stored[name]))]

    return spoil


def missing(name: str) -> Callable[[Contents], None]:
    return lambda stored: stored.__delitem__(name)


def grown(stored: Contents) -> None:
    stored[SERVING] += b"\0"


def swapped(stored: Contents) -> None:
    stored[SERVING], stored[MAPPINGS] = stored[MAPPINGS], stored[SERVING]


def with_foreign(*names: str) -> Callable[[Contents], None]:
    """Replace files by those of another version, which are valid themselves."""

    def spoil(stored: Contents) -> None:
        for name in names:
            stored[name] = stored[f"foreign {name}"]

    return spoil


STORED: Mapping[str, Callable[[Contents], None]] = {
    "the first bit of the arrays flipped": flipped(SERVING, 0.0),
    "a bit in the middle of the arrays flipped": flipped(SERVING, 0.5),
    "the last bit of the arrays flipped": flipped(SERVING, 1.0),
    "half of the arrays": cut(SERVING, 0.5),
    "empty arrays": cut(SERVING, 0.0),
    "no arrays": missing(SERVING),
    "arrays with a trailing byte": grown,
    "arrays and mappings swapped": swapped,
    "arrays of another version": with_foreign(SERVING),
    "a bit of the manifest flipped": flipped(MANIFEST, 0.5),
    "half of the manifest": cut(MANIFEST, 0.5),
    "no manifest": missing(MANIFEST),
    "the manifest of another version": with_foreign(MANIFEST),
    "manifest and arrays of another version": with_foreign(MANIFEST, SERVING),
}


# -- the published files are invalid although every digest matches


def with_arrays(change: Callable[[Arrays], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with np.load(folder / SERVING) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        change(arrays)
        content = io.BytesIO()
        np.savez(content, **arrays)
        with_content(folder, content.getvalue())

    return spoil


def with_content(folder: Path, content: bytes) -> None:
    """Write other arrays, and a manifest that lists them."""
    (folder / SERVING).write_bytes(content)
    with_manifest(folder, files={SERVING: {"size_bytes": len(content), "sha256": sha256(content)}})


def with_manifest(folder: Path, **members: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest | members))


def set_first(name: str, number: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name].flat[0] = number

    return change


def cut_rows(name: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name][:-1]

    return change


def as_float64(arrays: Arrays) -> None:
    arrays["gmf_item"] = arrays["gmf_item"].astype(np.float64)


def pickled(folder: Path) -> None:
    content = io.BytesIO()
    np.savez(content, gmf_item=np.array([{"a": 1}], dtype=object))
    with_content(folder, content.getvalue())


def as_list(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


PUBLISHED: Mapping[str, Callable[[Path], None]] = {
    "a number that is NaN": with_arrays(set_first("gmf_item", np.nan)),
    "an infinite number": with_arrays(set_first("popularity", np.inf)),
    "items without rows": with_arrays(cut_rows("gmf_item")),
    "users without histories": with_arrays(cut_rows("seen_starts")),
    "a history with an item index beyond the last": with_arrays(set_first("seen_items", 4)),
    "a history with a negative item index": with_arrays(set_first("seen_items", -1)),
    "an array of another dtype": with_arrays(as_float64),
    "a missing array": with_arrays(lambda arrays: arrays.__delitem__("output_mlp")),
    "a pickle": pickled,
    "not a zip file": lambda folder: with_content(folder, b"not a zip file"),
    "another format": lambda folder: with_manifest(folder, format=99),
    "a manifest that lists nothing": lambda folder: with_manifest(folder, files={}),
    "a manifest that is a list": as_list,
}


def spoil_stored(service: Service, key: ApiKey, spoil: Callable[[Contents], None]) -> None:
    """Change the stored files of the key's current version."""
    version = service.registry.get_key(key.key_id).current_version
    assert version is not None
    prefix = layout.model_prefix(key.key_id, version)
    stored = {name: service.store.read(prefix + name) for name in (MANIFEST, MAPPINGS, SERVING)}
    other = service.published_key(version_name="foreign")
    foreign = layout.model_prefix(other.key_id, str(service.registry.get_key(other.key_id).current_version))
    original = dict(stored)
    stored |= {f"foreign {name}": service.store.read(foreign + name) for name in (MANIFEST, SERVING)}
    # The arrays of both versions are equal, so make these differ.
    stored[f"foreign {SERVING}"] += b"x"
    spoil(stored)
    for name, content in original.items():
        if name not in stored:
            service.store.delete(prefix + name)
        elif stored[name] != content:
            service.store.replace(prefix + name, stored[name])


@pytest.fixture(params=[*STORED, *PUBLISHED])
def damage(request: pytest.FixtureRequest) -> Callable[[Service, ApiKey], None]:
    """Return a function that publishes a damaged version."""
    name: str = request.param

    def publish_damaged(service: Service, key: ApiKey) -> None:
        spoil = PUBLISHED.get(name, lambda _: None)
        publish(service.registry, service.store, key.key_id, service.folder / "damaged", service.now, spoil=spoil)
        if name in STORED:
            spoil_stored(service, key, STORED[name])

    return publish_damaged


def test_at_least_twenty_kinds_of_damage_are_tested() -> None:
    assert len(STORED) + len(PUBLISHED) >= 20


def test_previous_version_serves_while_the_current_one_is_damaged(
    service: Service, damage: Callable[[Service, ApiKey], None], caplog: pytest.LogCaptureFixture
) -> None:
    key = service.new_key()
    intact = publish(service.registry, service.store, key.key_id, service.folder / "intact", service.now)
    assert service.client.recommend(str(key)).json()["model_version"] == intact.version
    damage(service, key)
    service.now.move(4)
    for _ in range(3):
        response = service.client.recommend(str(key))
        assert (response.status_code, response.json()["model_version"]) == (200, intact.version)
        eventually(lambda: service.counted == ["ModelLoaded", "ModelFailed"])

    (line,) = [record for record in caplog.records if record.name == "recsys.models" and record.levelname == "ERROR"]
    assert line.getMessage().startswith("A model cannot be loaded: ")
    assert line.__dict__["key_id"] == key.key_id
    assert line.__dict__["model_version"] == service.registry.get_key(key.key_id).current_version


def test_damaged_first_version_is_a_problem_with_a_hint(
    service: Service, damage: Callable[[Service, ApiKey], None]
) -> None:
    key = service.new_key()
    damage(service, key)

    document = assert_problem(service.client.recommend(str(key)), 503, "artifact-damaged")

    assert document["hint"]
    assert service.counted == ["ModelFailed"]
