"""The training report: the tables in the terminal, the page and what it contains, and the map of the items."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import InvalidData
from recsys.settings import Settings
from recsys_local import item_map
from recsys_local.item_map import map_items, project
from recsys_local.quality_tables import print_quality
from recsys_local.training_report import read_titles, write_report
from tests.made_models import network_of, serving_model, write_model

MAX_PAGE_BYTES = 120_000
# Preact and uPlot name them to create elements; browsers do not request them.
MARKUP_NAMESPACES = {f"http://www.w3.org/{name}" for name in ("2000/svg", "1998/Math/MathML", "1999/xhtml")}
QUALITY = {"hr_at_10": 0.5, "ndcg_at_10": 0.4, "recall_at_20": 0.3, "ndcg_at_20": 0.25, "coverage_at_20": 0.5}
MEANS = {"recall_at_20": 0.3, "ndcg_at_20": 0.25, "popularity_recall_at_20": 0.1, "popularity_ndcg_at_20": 0.05}
METRICS: dict[str, Any] = {
    "quality": QUALITY,
    "popularity_baseline": QUALITY | {"ndcg_at_20": 0.1, "coverage_at_20": 0.0},
    "breakdowns": {
        "history_length": [
            {"shortest": 3, "longest": 4, "users": 1234, **MEANS},
            {"shortest": 200, "longest": None, "users": 1, **MEANS},
        ],
        "item_popularity": [
            {"items": 10, "most_users": 900, "fewest_users": 300, "held_out": 56, **MEANS, "coverage_at_20": 0.9}
        ],
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of four items; who bought i0 is recommended i2, then i1, then i3."""
    logits = [[4.0, 1.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    model = tmp_path / "model"
    write_model(model, serving_model(network_of(logits), seen=[[0], [0, 1], [0, 1, 2]]))
    return model


def written(folder: Path, titles: dict[str, str]) -> str:
    page = folder.parent / "report.html"
    write_report(page, METRICS, folder, source_name="a<b>.csv", titles=titles)
    return page.read_text(encoding="utf-8")


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


# -- in the terminal


def test_tables_show_the_model_beside_popularity(capsys: pytest.CaptureFixture[str]) -> None:
    print_quality(METRICS)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "NDCG@20 0.2500 0.1000 2.50×" in lines
    assert "coverage@20 0.5000 0.0000 –" in lines
    assert "3 to 4 1,234 0.2500 0.0500" in lines
    assert "200 or more 1 0.2500 0.0500" in lines
    assert "300 to 900 56 0.2500 0.0500 90% of 10 items" in lines


# -- the page


def test_page_contains_the_metrics_and_the_items_with_titles(folder: Path) -> None:
    data = data_of(written(folder, {"i0": "Green tea"}))
    assert data["metrics"] == METRICS
    assert [point[2:] for point in data["items"]["points"]] == [
        [1.0, "Green tea"], [0.667, "i1"], [0.333, "i2"], [0.0, "i3"],
    ]  # fmt: skip
    assert data["items"]["examples"][0] == {"name": "Green tea", "similar": ["i2", "i1", "i3"]}


def test_policy_permits_exactly_the_script_and_the_style_of_the_page(folder: Path) -> None:
    page = written(folder, {})
    inline = re.findall(r"<(script|style)>(.*?)</\1>", page, re.DOTALL)
    digests = {name: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for name, content in inline}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1] == (
        f"default-src 'none'; script-src 'sha256-{digests['script']}'; style-src 'sha256-{digests['style']}'; "
        "base-uri 'none'"
    )


def test_page_is_small_and_names_no_other_server(folder: Path) -> None:
    page = written(folder, {})
    assert len(page.encode()) < MAX_PAGE_BYTES
    assert set(re.findall(r"https?://[^\s\"'`)]+", page)) <= MARKUP_NAMESPACES
    assert re.findall(r"<(?:link|img|iframe)|\ssrc=|@import|url\(", page) == []


def test_page_contains_the_licences_of_its_script(folder: Path) -> None:
    comment = re.search(r"<!--(.*?)-->", written(folder, {}), re.DOTALL)
    assert comment is not None
    for package in ("preact@", "uplot@"):
        assert f"== {package}" in comment[1]
    assert comment[1].count("Permission is hereby granted, free of charge") >= 2


def test_text_of_the_data_cannot_become_markup(folder: Path) -> None:
    title = "</script><script>alert(1)</script>"
    page = written(folder, {"i0": title})
    assert "<title>Training on a&lt;b&gt;.csv</title>" in page
    assert title not in page
    assert data_of(page)["items"]["points"][0][3] == title


# -- titles


def test_titles_are_read_from_a_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,price\ni0, Green tea ,4\ni1,,3\n", encoding="utf-8")
    assert read_titles(path, Settings()) == {"i0": "Green tea"}


def test_file_without_item_ids_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("title,price\nGreen tea,4\n", encoding="utf-8")
    with pytest.raises(InvalidData, match="item_id"):
        read_titles(path, Settings())


# -- the map


def test_neighbours_of_an_item_are_near_it_on_the_map() -> None:
    """Three groups of items around three directions."""
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 40)
    embeddings = (np.eye(3, 8)[group] * 3 + generator.normal(0, 0.4, (120, 8))).astype(np.float32)

    positions = project(embeddings)

    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]
    assert (group[nearest] == group[:, None]).mean() > 0.95


def test_map_is_the_same_for_the_same_embeddings_of_another_length() -> None:
    embeddings = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    assert np.array_equal(project(embeddings), project(4 * embeddings))


@pytest.mark.parametrize("n_items", [0, 1, 2, 3, 4])
def test_small_catalogues_have_a_map(n_items: int) -> None:
    positions = project(np.zeros((n_items, 2), dtype=np.float32))
    assert positions.shape == (n_items, 2)
    assert np.isfinite(positions).all()


def test_map_shows_the_most_popular_items_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_map, "MAX_SHOWN", 20)
    model = serving_model(network_of([[0.0] * 30]), seen=[list(range(10, 30)), list(range(30))])
    items = map_items(model, {})
    assert (len(items["points"]), items["n_items"]) == (20, 30)
    assert {point[3] for point in items["points"]} == {f"i{item}" for item in range(10, 30)}
