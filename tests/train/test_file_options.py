"""Options and formats reach the training: as options of a request's job, and as the sidecar file of a drop."""

from __future__ import annotations

import json

import pytest

from recsys.registry.records import JobState
from tests.data_files.made_files import gz, zipped, zstd
from tests.markers import TENSORFLOW
from tests.train.backend import GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)

RENAMED = GOOD_CSV.replace(b"user_id,item_id", b"Kunde;Artikel").replace(b",", b";")


def test_a_drop_uses_the_options_of_its_sidecar_file(backend: Backend) -> None:
    backend.store.create("inbox/orders.csv.json", json.dumps({"user": "Kunde", "item": "Artikel"}).encode())
    job = backend.finish(backend.put("inbox/orders.csv", RENAMED))
    assert job.state is JobState.SUCCEEDED
    assert job.report is not None
    assert job.report["mapping"] == {"user": "Kunde", "item": "Artikel"}
    assert job.report["format"]["delimiter"] == ";"


@pytest.mark.parametrize("sidecar", [b"{", b"[]", b'{"column": "x"}'])
def test_a_drop_with_an_invalid_sidecar_file_fails_with_the_reason(backend: Backend, sidecar: bytes) -> None:
    backend.store.create("inbox/orders.csv.json", sidecar)
    job = backend.finish(backend.put("inbox/orders.csv", GOOD_CSV))
    assert job.problem is not None
    assert job.problem.code == "invalid-option"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("orders.csv.zst", zstd(GOOD_CSV)),
        ("orders.csv.zip", zipped({"orders.csv": GOOD_CSV})),
        ("orders.tsv.gz", gz(GOOD_CSV.replace(b",", b"\t"))),
        ("orders.csv", GOOD_CSV.decode().encode("utf-16")),
    ],
    # An archive contains the time, so that its bytes would differ between the processes of a test run.
    ids=["zstd", "zip", "gzip", "UTF-16"],
)
def test_every_extension_of_a_drop_is_trained_on(backend: Backend, name: str, content: bytes) -> None:
    assert backend.finish(backend.put(f"inbox/{name}", content)).state is JobState.SUCCEEDED
