"""The first start: train on the bundled Online Retail sample and show what comes of it."""

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

from rich.console import Console
from rich.table import Table

from recsys.errors import JobNotFound, ObjectNotFound
from recsys.keys.api_key import ApiKey
from recsys.model import artifact
from recsys.model.recommender import ServingModel, recommend
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.records import Job, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.training import NewFile, Training

SAMPLE = importlib.resources.files("recsys_local") / "sample"
MARKER = "sample.json"
"""In the data directory: the sample's job, so that it is trained once and taken up again after a crash."""
POLL_S = 0.5
SHOWN_ITEMS = 8


@dataclass(slots=True)
class SampleRun:
    """Trains on the sample if that was not done yet, waits for the model, prints what it recommends."""

    store: ObjectStore
    registry: Registry
    settings: Settings
    base_url: str

    def start(self) -> None:
        """Run in a thread beside the server."""
        threading.Thread(target=self.run, name="sample", daemon=True).start()

    def run(self) -> None:
        """Do it, and return when it is printed."""
        api_key: ApiKey | None = None
        earlier = self._earlier_job()
        if earlier is None:
            job_id, api_key = self._submit()
        elif earlier.state is JobState.SUCCEEDED:
            self._print_key_line(None)
            return
        else:
            job_id = earlier.job_id
        job = self._wait(job_id)
        if job.state is JobState.SUCCEEDED:
            self._show(job, api_key)
        elif job.problem is not None:
            print(f"Training on the sample failed: {job.problem.detail}", flush=True)

    @property
    def _marker(self) -> Path:
        return self.settings.data_dir / MARKER

    def _earlier_job(self) -> Job | None:
        """The job of an earlier start that succeeded or still can; None asks for a new one."""
        try:
            job = self.registry.get_job(str(json.loads(self._marker.read_bytes())["job_id"]))
        except (FileNotFoundError, JobNotFound, ValueError, KeyError, TypeError):  # absent, outlived, torn or not ours
            return None
        return None if job.state.is_final and job.state is not JobState.SUCCEEDED else job

    def _mark(self, job_id: str) -> None:
        temporary = self._marker.with_suffix(".tmp")
        temporary.write_text(json.dumps({"job_id": job_id}))
        temporary.replace(self._marker)

    def _submit(self) -> tuple[str, ApiKey | None]:
        """Ask for it as `POST /v1/train` does."""
        content = (SAMPLE / "online_retail.csv.gz").read_bytes()
        file = NewFile(io.BytesIO(content), hashlib.sha256(content).hexdigest(), gzipped=True)
        accepted = Training(self.registry, self.store, self.settings).accept(file, key=None, idempotency_key=None)
        print("Training on the bundled sample, Online Retail (397,924 purchases): about a minute.", flush=True)
        self._print_key_line(accepted.api_key)
        self._mark(accepted.job.job_id)  # only now: a key that was never shown could not be shown again
        return accepted.job.job_id, accepted.api_key

    def _print_key_line(self, api_key: ApiKey | None) -> None:
        if api_key is not None:
            print(f"Its API key, shown only now: {api_key}", flush=True)
        else:
            print(
                f"The sample's model is ready under the key that the first start printed ({self.base_url}).", flush=True
            )

    def _wait(self, job_id: str) -> Job:
        """The worker shows the progress; this waits for its end."""
        while not (job := self.registry.get_job(job_id)).state.is_final:
            time.sleep(POLL_S)
        return job

    def _show(self, job: Job, api_key: ApiKey | None) -> None:
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
        key_text = str(api_key) if api_key else "<the key that the first start printed>"
        print(_curl_lines(self.base_url, key_text, user_id), flush=True)

    def _load(self, job: Job) -> ServingModel:
        if job.version is None:
            raise ObjectNotFound(f"Job {job.job_id} has no version.")
        prefix = layout.model_prefix(job.key_id, job.version)
        key = self.registry.get_key(job.key_id)
        return artifact.read_model(
            lambda name: self.store.read(prefix + name),
            manifest_sha256=key.current_manifest_sha256 if key.current_version == job.version else None,
        )


def _typical_user(model: ServingModel) -> str:
    """The first customer with a screenful of purchases."""
    return next(user for row, user in enumerate(model.users) if SHOWN_ITEMS <= len(model.seen(row)) <= 2 * SHOWN_ITEMS)


def _table(model: ServingModel, user_id: str) -> Table:
    bought = [model.items[item] for item in model.seen(model.users.index(user_id))][:SHOWN_ITEMS]
    table = Table(title=f"Customer {user_id}", expand=True)
    table.add_column("bought", ratio=1)
    table.add_column("is recommended", ratio=1)
    table.add_column("score", justify="right")
    answer = recommend(model, user_id, n=SHOWN_ITEMS)
    for had, item in zip(bought, answer.items, strict=False):
        table.add_row(_titled(had), _titled(item.item_id), f"{item.score:.3f}")
    return table


@functools.cache
def _titles() -> dict[str, str]:
    rows = csv.DictReader((SAMPLE / "online_retail_items.csv").read_text(encoding="utf-8").splitlines())
    return {row["item_id"]: row["title"].strip() for row in rows}


def _titled(item_id: str) -> str:
    return f"{item_id} {_titles().get(item_id, '')}".strip()


def _curl_lines(base_url: str, api_key: str, user_id: str) -> str:
    body = json.dumps({"user_id": user_id, "n": 5})
    return f"""
Ask for them yourself:
  curl {base_url}/v1/recommendations -H 'X-API-Key: {api_key}' \\
    -H 'Content-Type: application/json' -d '{body}'
Train on your own orders (a CSV with user_id,item_id and, if you have them, interaction_score,timestamp):
  curl {base_url}/v1/train -F file=@orders.csv -H 'Prefer: wait=60'
"""
