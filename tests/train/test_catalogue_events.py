"""Process files of items through the same events as trainings, and in the local worker's own thread."""

from __future__ import annotations

import contextlib
import gzip

import numpy as np

from recsys.catalogue.catalogue import Catalogue, read_catalogue
from recsys.catalogue.content import ContentModel
from recsys.errors import Unavailable
from recsys.model.array_file import view_npz
from recsys.model.artifact import read_content
from recsys.objects import layout
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobPurpose, JobState
from recsys_local.catalogue_worker import CatalogueWorker
from recsys_local.watcher import ObjectWatcher
from tests.markers import TENSORFLOW
from tests.train.backend import LEASE_S, Backend, Killed, at_call, raising

pytestmark = list(TENSORFLOW)
ITEMS = b"item_id,title,price\ni1,One,1\ni2,Two,2\n"
ITEMS_WITH_A_NEW_ONE = b"item_id,title\ni1,Red mug\ni2,Red bag\nnew,Red pot\nother,Kettle\n"


def send(backend: Backend, job_id: str, key_id: str, content: bytes = ITEMS, *, mode: str = "replace") -> ObjectCreated:
    """Create a catalogue job and then its file, as the API does."""
    name = layout.items_upload(job_id)
    options = {"mode": mode}
    job = Job(job_id, key_id, name, backend.now, backend.now, purpose=JobPurpose.CATALOGUE, options=options)
    backend.registry.create_job(job)
    return backend.put(name, content)


def catalogue_of(backend: Backend, key_id: str) -> Catalogue:
    key = backend.registry.get_key(key_id)
    assert key.catalogue_version is not None
    assert key.catalogue_sha256 is not None
    name = layout.catalogue_prefix(key_id, key.catalogue_version) + layout.CATALOGUE_FILE
    return read_catalogue(backend.store.read(name), sha256=key.catalogue_sha256)


def files(backend: Backend, key_id: str) -> list[str]:
    prefix = layout.catalogue_prefix(key_id)
    return [info.name.removeprefix(prefix) for info in backend.store.list(prefix)]


def test_a_file_of_items_becomes_the_catalogue_of_its_key(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    job = backend.finish(send(backend, "job1", key_id))
    assert (job.state, job.version, job.problem, backend.fits) == (JobState.SUCCEEDED, "job1.1", None, 0)
    assert list(catalogue_of(backend, key_id).items) == ["i1", "i2"]


def test_a_file_that_was_sent_with_an_upload_form_replaces_the_catalogue(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(send(backend, "job1", key_id, ITEMS_WITH_A_NEW_ONE))
    name = layout.upload("job2", gzipped=True)
    purpose = JobPurpose.CATALOGUE
    backend.registry.create_job(Job("job2", key_id, name, backend.now, backend.now, purpose=purpose))
    assert backend.finish(backend.put(name, gzip.compress(ITEMS))).problem is None
    assert list(catalogue_of(backend, key_id).items) == ["i1", "i2"]


def test_a_training_and_a_catalogue_of_a_key_do_not_affect_each_other(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(backend.upload("model1", key_id))
    backend.finish(send(backend, "items1", key_id))
    backend.finish(backend.upload("model2", key_id))
    key = backend.registry.get_key(key_id)
    assert (key.current_version, key.catalogue_version) == ("model2.1", "items1.1")


def test_a_model_that_is_trained_when_there_is_a_catalogue_can_embed_new_items(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(send(backend, "items1", key_id, ITEMS_WITH_A_NEW_ONE))
    backend.finish(backend.upload("model1", key_id))
    model, key = backend.load(key_id), backend.registry.get_key(key_id)
    prefix = layout.model_prefix(key_id, "model1.1")
    content = read_content(lambda name: backend.store.read(prefix + name), manifest_sha256=key.current_manifest_sha256)
    assert content is not None
    catalogue = catalogue_of(backend, key_id)
    found = ContentModel.of(view_npz(content)).new_items(catalogue, np.array([2, 3]), model.network)
    assert found is not None
    assert list(found.items) == ["new"]


def test_an_attempt_that_was_killed_leaves_no_file(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = send(backend, "job1", key_id)
    publish = backend.registry.publish_catalogue
    backend.registry.publish_catalogue = raising(Killed())  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        backend.process(event)
    assert files(backend, key_id) == ["job1.1/items.npz"]

    backend.registry.publish_catalogue = publish  # type: ignore[method-assign]
    backend.pass_s(2 * LEASE_S)
    assert backend.finish(event).version == "job1.2"
    assert files(backend, key_id) == ["job1.2/items.npz"]


def test_a_merge_is_repeated_when_another_one_was_published_meanwhile(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(send(backend, "job1", key_id))
    slow = send(backend, "job2", key_id, b"item_id,price\ni1,10\n", mode="merge")
    fast = send(backend, "job3", key_id, b"item_id,price\ni2,20\n", mode="merge")

    def overtake() -> None:
        backend.store.before.clear()
        backend.finish(fast, backend.worker("worker-2"))

    backend.store.before["create"] = at_call(1, overtake)
    job = backend.finish(slow)

    assert job.report is not None
    assert job.report["updated"] == 1
    catalogue = catalogue_of(backend, key_id)
    assert [catalogue.attributes(row)["price"] for row in range(2)] == [10, 20]


def test_a_store_that_does_not_respond_is_retried(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = send(backend, "job1", key_id)
    backend.store.before["create"] = raising(Unavailable("The disk is full."))
    with contextlib.suppress(Unavailable):
        backend.process(event)
    assert backend.registry.get_job("job1").state is JobState.RUNNING
    backend.store.before.clear()
    assert backend.finish(event).state is JobState.SUCCEEDED


def test_items_of_a_revoked_key_fail_their_job(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = send(backend, "job1", key_id)
    backend.registry.revoke_key(key_id)
    job = backend.finish(event)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (JobState.FAILED, "unknown-key")


def test_the_local_worker_applies_files_in_order_and_deletes_them(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    send(backend, "zzz", key_id)
    send(backend, "aaa", key_id, b"item_id,price\ni1,5\n", mode="merge")

    CatalogueWorker(backend.worker("catalogues"), contextlib.nullcontext).look()

    assert catalogue_of(backend, key_id).attributes(0) == {"title": "One", "price": 5}
    assert list(backend.store.list(layout.ITEM_UPLOADS)) == []


def test_the_queue_of_trainings_ignores_files_of_items(backend: Backend) -> None:
    send(backend, "job1", backend.add_key().key_id)
    assert ObjectWatcher(backend.store, backend.root / "objects").look() == []
