"""The function `dispatch`: which files wait for whose turn, and which messages are retried."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recsys.clock import DAY_S, after
from recsys.errors import Unavailable
from recsys.objects.created import object_created, records_of
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteTable
from recsys.registry.table import Row
from recsys.registry.turns import ANONYMOUS, FileTurn, Turns
from recsys_api.arrivals import Arrivals
from tests.unit.http_fakes import START
from tests.unit.lambda_events import FOLDER, Context, imported, unconfigured_logging

NOTIFICATION: dict[str, Any] = json.loads((FOLDER / "s3_object_created.json").read_text("utf-8"))
BUCKET = NOTIFICATION["Records"][0]["s3"]["bucket"]["name"]


def notification(name: str, *, second: int = 0) -> dict[str, Any]:
    """Return the notification that an object was created."""
    (record,) = json.loads(json.dumps(NOTIFICATION))["Records"]
    record["s3"]["object"] |= {"key": name, "versionId": f"version-of-{name}"}
    return {"Records": [record | {"eventTime": f"2026-03-01T12:00:{second:02}.000Z"}]}


@dataclass
class Stage:
    """The registry and the messages in the queue of trainings."""

    table: SqliteTable
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return Registry(self.table, lambda: START)

    @property
    def arrivals(self) -> Arrivals:
        return Arrivals(self.registry, Turns(self.table, lambda text: self.messages.append(json.loads(text))))

    def upload(self, job_id: str, key_id: str, **fields: Any) -> str:
        """Create a job as the API does, and return the name of its file."""
        name = fields.pop("object_name", f"uploads/{job_id}.csv")
        self.registry.create_job(Job(job_id, key_id, name, created_at=START, updated_at=START, **fields))
        return name

    def group_of(self, name: str) -> str:
        """Return the group for whose turn a file waits."""
        assert self.arrivals.add(*notification(name)["Records"])
        group: str = self.messages[-1]["turn"]["group"]
        return group


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(SqliteTable(tmp_path / "registry.sqlite"))
    expires_at = after(START, DAY_S)
    for key in (
        KeyRecord("trained", START, expires_at=expires_at, current_version="v1.1"),
        KeyRecord("operator", START),
        KeyRecord("revoked", START, current_version="v1.1", revoked_at=START),
        KeyRecord("new", START, expires_at=expires_at),
    ):
        stage.registry.create_key(key)
    yield stage
    stage.table.close()


@pytest.mark.parametrize(
    ("key_id", "group"),
    [
        ("trained", "trained"),
        ("operator", "operator"),
        ("revoked", "revoked"),
        ("new", ANONYMOUS),
        ("missing", ANONYMOUS),
    ],
)
def test_known_keys_have_their_own_turns_and_all_others_share_one(stage: Stage, key_id: str, group: str) -> None:
    assert stage.group_of(stage.upload("job1", key_id)) == group
    stage.messages.clear()
    stage.table.write([row.changed_to(None) for row in stage.table.list("TURNS", "GROUP#")])
    assert stage.group_of(f"inbox/{key_id}/orders.csv") == group


def test_drop_without_a_key_is_anonymous(stage: Stage) -> None:
    assert stage.group_of("inbox/orders.csv") == ANONYMOUS


@pytest.mark.parametrize("purpose", [JobPurpose.VALIDATE, JobPurpose.CATALOGUE])
def test_validations_and_catalogues_of_a_known_key_have_turns_beside_its_trainings(
    stage: Stage, purpose: JobPurpose
) -> None:
    assert stage.group_of(stage.upload("job1", "trained")) == "trained"
    name = "uploads/items/job2" if purpose is JobPurpose.CATALOGUE else "uploads/job2.csv"
    assert stage.group_of(stage.upload("job2", "trained", purpose=purpose, object_name=name)) == f"trained/{purpose}"


def test_message_contains_the_notification_and_the_turn(stage: Stage) -> None:
    body = notification(stage.upload("job1", "trained"))
    assert stage.arrivals.add(*body["Records"])
    (message,) = stage.messages
    assert message["Records"] == body["Records"]
    assert message["turn"]["file"].startswith(object_created(body["Records"][0]).data_timestamp)


@pytest.mark.parametrize(
    ("options", "expected"),
    [(None, ["job1", "job3", "job2"]), ({"mode": "append"}, ["job1", "job2", "job3"])],
    ids=["complete", "added"],
)
def test_newest_complete_file_precedes_older_ones_and_added_files_keep_their_order(
    stage: Stage, options: dict[str, Any] | None, expected: list[str]
) -> None:
    for second, job_id in enumerate(("job1", "job2", "job3")):
        name = stage.upload(job_id, "trained", options=options)
        assert stage.arrivals.add(*notification(name, second=second)["Records"])
    turns = Turns(stage.table, lambda text: stage.messages.append(json.loads(text)))
    for sent in range(2):
        turns.end(FileTurn(**stage.messages[sent]["turn"]))
    found = [message["Records"][0]["s3"]["object"]["key"] for message in stage.messages]
    assert found == [f"uploads/{job_id}.csv" for job_id in expected]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("uploads/unknown.csv", "no job with the id"),
        ("uploads/job1.csv.gz", "The job job1 expects the object 'uploads/job1.csv'."),
        ("inbox/read+me.txt", "neither an upload nor a file in the inbox"),
        ("inbox/orders.csv.json", "neither an upload nor a file in the inbox"),
        ("inbox/a%5Cb.csv", "must not contain a backslash"),
    ],
)
def test_object_that_starts_no_job_is_ignored_and_the_log_says_why(
    stage: Stage, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    stage.upload("job1", "trained")
    with caplog.at_level(logging.INFO, "recsys.dispatch"):
        assert not stage.arrivals.add(*notification(name)["Records"])
    assert stage.messages == []
    (line,) = caplog.messages
    assert reason in line


def test_notification_of_another_bucket_has_no_records() -> None:
    assert [object_created(record).name for record in records_of(NOTIFICATION, BUCKET)] == [
        "inbox/spring orders + more.csv"
    ]
    assert records_of(NOTIFICATION, f"{BUCKET}-2") == []


def test_messages_that_failed_are_reported_and_the_others_are_done(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["inbox/first.csv", "inbox/refused.csv", "inbox/other.csv"]
    arrivals = stage.arrivals
    add = arrivals.add

    def refuse(record: dict[str, Any]) -> bool:
        if "refused" in record["s3"]["object"]["key"]:
            raise Unavailable("The registry is gone.")
        return add(record)

    monkeypatch.setattr(arrivals, "add", refuse)
    bodies = [json.dumps(notification(name)) for name in names]
    bodies += [
        "no JSON",
        json.dumps(notification("inbox/foreign.csv")).replace(BUCKET, "other"),
        '{"Event": "s3:Test"}',
    ]
    with unconfigured_logging():
        handle = imported("recsys_api.dispatch_handler", monkeypatch).build_handler(arrivals, BUCKET)
        reply = handle(_sqs_event(bodies), Context())
    assert reply == {"batchItemFailures": [{"itemIdentifier": "1"}, {"itemIdentifier": "3"}]}
    assert [row.address.partition for row in stage.table.list(f"WAITING#{ANONYMOUS}", "FILE#")] == [
        f"WAITING#{ANONYMOUS}"
    ] * 2
    assert [message["turn"]["group"] for message in stage.messages] == [ANONYMOUS]
    output = capsys.readouterr().out
    assert "Message will be retried: The registry is gone." in output
    assert '"MessagesFailed":[1.0,1.0]' in output


def test_each_invocation_lets_a_group_continue_whose_message_is_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("inbox/lost.csv", "inbox/next.csv"):
        stage.arrivals.add(*notification(name)["Records"])
    (turn,) = stage.table.list("TURNS", "GROUP#")
    assert stage.table.write([turn.changed_to({**(turn.document or {}), "valid_until": START})])
    with unconfigured_logging():
        handle = imported("recsys_api.dispatch_handler", monkeypatch).build_handler(stage.arrivals, BUCKET)
        assert handle(_sqs_event(['{"Event": "s3:TestEvent"}']), Context()) == {"batchItemFailures": []}
    assert [message["Records"][0]["s3"]["object"]["key"] for message in stage.messages] == [
        "inbox/lost.csv",
        "inbox/next.csv",
    ]


def test_batch_is_done_although_turns_could_not_be_resumed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_partition: str, _sort_prefix: str) -> list[Row]:
        raise Unavailable("The registry is gone.")

    monkeypatch.setattr(stage.table, "list", refuse)
    stage.arrivals.resume()
    assert "Turns could not be resumed" in caplog.text


def _sqs_event(bodies: list[str]) -> dict[str, Any]:
    (template,) = json.loads((FOLDER / "sqs_message.json").read_text("utf-8"))["Records"]
    return {"Records": [template | {"messageId": str(number), "body": body} for number, body in enumerate(bodies)]}
