"""The local service under load while versions change and a key is revoked; `make bench-serve` runs it for a minute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recsys.model.neumf import Dims
from recsys.settings import Settings
from tests.benchmarks.load import COLUMNS, measure_models
from tests.benchmarks.serving_load import REVOKED_WITHIN_S, Seen, run_load
from tests.benchmarks.tables import Table

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("load")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    dims = Dims(n_users=300, n_items=500, gmf_dim=16, mlp_dim=8, hidden_dims=(16, 8))
    cached_s = Settings().key_cache_s  # a version that is current for longer is noticed
    return run_load(tmp_path_factory.mktemp("load"), 14.0, dims=dims, flip_s=(cached_s + 0.5, cached_s + 1.0))


def test_every_response_is_of_one_of_the_two_versions(seen: Seen) -> None:
    assert len(seen.latencies_ms) > 500
    assert seen.wrong == []
    assert len(seen.versions) == 3, "both versions of the one key, and the revoked key's"


def test_only_requests_with_the_revoked_key_fail(seen: Seen) -> None:
    assert seen.errors == []
    assert seen.rejected > 0


def test_revoked_key_is_rejected_within_five_seconds(seen: Seen) -> None:
    assert seen.last_answer_after_revoked_s < REVOKED_WITHIN_S


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc")
def test_more_models_than_the_cache_holds_are_served_within_its_memory(tmp_path: Path) -> None:
    table = Table("", COLUMNS)
    measure_models(tmp_path, 10.0, table, n_keys=16)
    row = dict(zip(COLUMNS, table.rows[0], strict=True))
    print(row)
    assert (row["errors"], row["wrong"]) == (0, 0)
    assert float(str(row["requests/s"])) > 1
    assert float(str(row["peak MB"])) < float(str(row["allowed MB"]))
