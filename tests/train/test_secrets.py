"""Secrets do not leave the places that they are meant for."""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace

import pytest

from recsys.errors import Gone, Unavailable
from recsys.keys.api_key import ApiKey, claim_token_sha256
from tests.markers import TENSORFLOW
from tests.train.backend import BAD_CSV, GOOD_CSV, Backend, raising

pytestmark = list(TENSORFLOW)


def test_no_secret_appears_in_logs_errors_rows_or_objects(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    weird = GOOD_CSV + 'u1,"a ""quoted"", id"\nu2,%s %d {0} ${jndi:x}\nu3,<script>\nu4,\u202eabc\n'.encode()
    api_key = backend.add_key()
    exposed = ""
    for content in (weird, BAD_CSV, b"\xff\xfe"):
        backend.finish(backend.put(f"inbox/{api_key.key_id}/orders.csv", content))
    backend.finish(backend.put("inbox/new.csv", weird))
    token = backend.receipt("receipts/new.json")["claim_token"]
    claimed = replace(ApiKey.mint(), key_id=backend.receipt("receipts/new.json")["key_id"])
    backend.registry.claim_key(claim_token_sha256(token), claimed.sha256())
    for fault in (Unavailable("The disk is full."), RuntimeError("unexpected")):
        backend.store.before["create"] = raising(fault)
        with pytest.raises(type(fault)) as caught:
            backend.process(backend.put(f"inbox/{api_key.key_id}/again.csv"))
        exposed += "".join(traceback.format_exception(caught.value))
    with pytest.raises(Gone) as rejected:
        backend.registry.claim_key(claim_token_sha256(token), claimed.sha256())
    exposed += "".join(traceback.format_exception(rejected.value))
    exposed += "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    rows = b"".join(path.read_bytes() for path in backend.root.glob("registry.sqlite3*"))
    objects = {info.name: backend.store.read(info.name) for info in backend.store.list("")}
    assert rows.count(claimed.key_id.encode()) > 0  # these are the rows

    for secret in (api_key.secret, str(api_key), claimed.secret, str(claimed), token):
        assert secret not in exposed
        assert secret.encode() not in rows
        holders = [name for name, content in objects.items() if secret.encode() in content]
        assert holders == (["receipts/new.json"] if secret == token else [])
