"""Train on the bundled Online Retail data set at the first start with `--sample`, and print commands to try."""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.resources
import io
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from recsys.clock import utc_now
from recsys.errors import InvalidApiKey, JobNotFound, ObjectNotFound, RecsysError
from recsys.keys.api_key import ApiKey
from recsys.keys.base62 import job_id_of_request
from recsys.model import artifact
from recsys.model.recommender import ServingModel, recommend
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.records import Job, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.catalogue import CatalogueMode, CatalogueUpdates
from recsys_api.training import NewFile, Training
from recsys_local.adapters import SAMPLE_FILE, SIGN_IN_FILE, write_private
from recsys_local.console import SignIn, SignInLinks

SAMPLE: Final = importlib.resources.files("recsys_local") / "sample"
ITEMS_FILE: Final = "online_retail_items.csv"
POLL_S: Final = 0.5
SHOWN_ITEMS: Final = 8
EXAMPLE_USER: Final = "17850"  # the first customer in the file; the examples of the documentation use it too


@dataclass(slots=True)
class SampleRun:
    """A run that trains on the sample once per data directory and prints example recommendations at every start.

    The data directory contains the API key of the sample, so that every start can print the key.

    Parameters
    ----------
    store, registry, settings
        Object store, registry and settings of the running service. The sample is submitted in the same way as an upload
        with `POST /v1/train`.
    base_url
        URL of the service, for the printed commands and the link to the console.
    """

    store: ObjectStore
    registry: Registry
    settings: Settings
    base_url: str

    def start(self) -> None:
        """Call `run` in a background thread, so that the server can start in the meantime."""
        threading.Thread(target=self.run, name="sample", daemon=True).start()

    def run(self) -> None:
        """Submit the sample unless an earlier start has submitted it, wait for the training, and print the result."""
        submitted = self._read_marker()
        if submitted is None:
            submitted = self._submit()
        try:
            self._print_link(submitted)
            self._send_items(self.registry.get_job(submitted.job_id).key_id)
            job = self._wait(submitted.job_id)
            if job.state is JobState.SUCCEEDED:
                self._show(job, submitted.api_key)
            elif job.problem is not None:
                print(f"Training on the sample failed: {job.problem.detail}", flush=True)
        except RecsysError as error:  # the key expired, or the model was deleted or damaged
            print(f"The sample's model cannot be shown: {error.detail}", flush=True)

    @property
    def _marker(self) -> Path:
        return self.settings.data_dir / SAMPLE_FILE

    def _read_marker(self) -> _Submitted | None:
        """Return the training job and the API key that an earlier start stored in the data directory.

        Return None if no start has stored them, if the job has expired, or if it ended without success.
        """
        try:
            marker = json.loads(self._marker.read_bytes())
            submitted = _Submitted(str(marker["job_id"]), str(marker.get("api_key") or ""))
            job = self.registry.get_job(submitted.job_id)
        except (FileNotFoundError, JobNotFound, ValueError, KeyError, TypeError, AttributeError):
            return None  # first start, expired job, or a damaged marker
        return None if job.state.is_final and job.state is not JobState.SUCCEEDED else submitted

    def _write_marker(self, submitted: _Submitted) -> None:
        write_private(self._marker, json.dumps({"job_id": submitted.job_id, "api_key": submitted.api_key}))

    def _submit(self) -> _Submitted:
        content = (SAMPLE / "online_retail.csv.gz").read_bytes()
        file = NewFile(io.BytesIO(content), hashlib.sha256(content).hexdigest(), gzipped=True)
        accepted = Training(self.registry, self.store, self.settings).accept(file, key=None, idempotency_key=None)
        submitted = _Submitted(accepted.job.job_id, str(accepted.api_key))
        self._write_marker(submitted)
        print("Training on the bundled sample, Online Retail (397,924 purchases). This takes about a minute.")
        print(f"API key of the sample: {submitted.api_key} (also in {self._marker})", flush=True)
        return submitted

    def _print_link(self, submitted: _Submitted) -> None:
        """Print a link that opens the console with the sample's key, unless the key is no longer valid."""
        if self._is_valid(self.registry.get_job(submitted.job_id).key_id, submitted.api_key):
            links = SignInLinks(self.settings.data_dir / SIGN_IN_FILE, self.base_url)
            link = links.create(SignIn(api_key=submitted.api_key, job_id=submitted.job_id, user_id=EXAMPLE_USER))
            print(f"Open the sample in the console (the link works once): {link}", flush=True)

    def _send_items(self, key_id: str) -> None:
        """Send the items of the sample as the item catalogue of the key, unless the key has or had a catalogue."""
        key = self.registry.get_key(key_id)
        if key.catalogue_version or key.catalogue_data_timestamp or key.revoked_at:
            return
        content = (SAMPLE / ITEMS_FILE).read_bytes()
        file = NewFile(io.BytesIO(content), hashlib.sha256(content).hexdigest(), gzipped=False)
        updates = CatalogueUpdates(self.registry, self.store, self.settings, utc_now)
        updates.accept(file, key=key, mode=CatalogueMode.REPLACE, job_id=job_id_of_request(key_id, ITEMS_FILE))

    def _wait(self, job_id: str) -> Job:
        """Wait until the job is in a final state, and return the job. The worker shows the progress in the meantime."""
        while not (job := self.registry.get_job(job_id)).state.is_final:
            time.sleep(POLL_S)
        return job

    def _show(self, job: Job, api_key: str) -> None:
        model = self._load(job)
        user_id = _typical_user(model)
        console = Console(width=120, highlight=False)
        console.print()
        if job.metrics:
            quality, popularity = job.metrics["quality"], job.metrics["popularity_baseline"]
            console.print(
                f"Held-out purchases: NDCG@20 {quality['ndcg_at_20']:.3f} (popularity {popularity['ndcg_at_20']:.3f}), "
                f"HR@10 {quality['hr_at_10']:.3f} (popularity {popularity['hr_at_10']:.3f})"
            )
        console.print(_table(model, user_id))
        if self._is_valid(job.key_id, api_key):
            item_id = model.items[model.seen(model.users.index(user_id))[0]]
            print(commands_to_try(self.base_url, api_key, user_id, item_id), flush=True)
        else:
            print(f"The API key of the sample was rotated or revoked; the one in {self._marker} is no longer valid.")

    def _is_valid(self, key_id: str, api_key: str) -> bool:
        try:
            parsed = ApiKey.parse(api_key)
        except InvalidApiKey:
            return False
        key = self.registry.get_key(key_id)
        return key.revoked_at is None and key.secret_sha256 is not None and parsed.matches(key.secret_sha256)

    def _load(self, job: Job) -> ServingModel:
        if job.version is None:
            raise ObjectNotFound(f"Job {job.job_id} has no version.")
        prefix = layout.model_prefix(job.key_id, job.version)
        key = self.registry.get_key(job.key_id)
        return artifact.read_model(
            lambda name: self.store.read(prefix + name),
            manifest_sha256=key.current_manifest_sha256 if key.current_version == job.version else None,
        )


@dataclass(frozen=True, slots=True)
class _Submitted:
    """The training job of the sample, and the API key of its model."""

    job_id: str
    api_key: str


def _typical_user(model: ServingModel) -> str:
    """Return the first user with a history of suitable length for the printed example."""
    return next(
        user for index, user in enumerate(model.users) if SHOWN_ITEMS <= len(model.seen(index)) <= 2 * SHOWN_ITEMS
    )


def _table(model: ServingModel, user_id: str) -> Table:
    history = [model.items[item] for item in model.seen(model.users.index(user_id))][:SHOWN_ITEMS]
    table = Table(title=f"Customer {user_id}", expand=True)
    table.add_column("bought", ratio=1)
    table.add_column("is recommended", ratio=1)
    table.add_column("score", justify="right")
    recommended = recommend(model, user_id, n=SHOWN_ITEMS)
    for bought, item in zip(history, recommended.items, strict=False):
        table.add_row(_with_title(bought), _with_title(item.item_id), f"{item.score:.3f}")
    return table


@functools.cache
def _titles() -> dict[str, str]:
    rows = csv.DictReader((SAMPLE / ITEMS_FILE).read_text(encoding="utf-8").splitlines())
    return {row["item_id"]: row["title"].strip() for row in rows}


def _with_title(item_id: str) -> str:
    return f"{item_id} {_titles().get(item_id, '')}".strip()


def commands_to_try(base_url: str, api_key: str, user_id: str, item_id: str) -> str:
    """Return curl commands that a reader can copy and run unchanged. Each command is on one line.

    Parameters
    ----------
    base_url
        Address of the service.
    api_key
        A valid key that has a model.
    user_id, item_id
        Ids of a user and an item of the key's model.
    """
    body = json.dumps({"user_id": user_id, "n": 5, "fields": ["title"]})
    basket = json.dumps({"user_id": "new-customer", "recent_items": [item_id], "n": 5})
    json_type = "-H 'Content-Type: application/json'"
    return f"""
Recommendations for this customer:
  curl {base_url}/v1/recommendations -H 'X-API-Key: {api_key}' {json_type} -d '{body}'
For a new customer with one item in the basket:
  curl {base_url}/v1/recommendations -H 'X-API-Key: {api_key}' {json_type} -d '{basket}'
Items similar to that item:
  curl {base_url}/v1/items/{quote(item_id, safe="")}/similar -H 'X-API-Key: {api_key}'
Train a model of your own; with your file, write -F file=@orders.csv:
  printf 'user_id,item_id\\nanna,tea\\nanna,milk\\nben,tea\\nben,jam\\ncleo,milk\\ncleo,jam\\n' | \
curl {base_url}/v1/train -F 'file=@-;filename=orders.csv;type=text/csv' -H 'Prefer: wait=60'
"""
