"""New items: lists equal those of a model that contains their rows, up to the share of new items."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.catalogue.catalogue import EMPTY, Catalogue
from recsys.catalogue.content import MAX_NEW_ITEMS, ContentModel, features_of
from recsys.keys.api_key import ApiKey
from recsys.model import artifact
from recsys.model.array_file import write_npz
from recsys.model.choosing import Constraints, GroupLimit
from recsys.model.neumf import Dims, Network
from recsys.model.new_items import ItemRows, NewItems
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel, popular, recommend, similar
from recsys.model.vocabulary import Vocabulary
from recsys_train import catalogue_job
from recsys_train.catalogue.content_fit import RIDGE, fit_content
from recsys_train.catalogue.records import ItemRecord
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.catalogue.update import apply_updates, read_updates
from tests.made_models import network_of, random_network, serving_model
from tests.unit.catalogues import ITEMS as OTHER_ITEMS
from tests.unit.catalogues import update
from tests.unit.http_fakes import Service, eventually, publish, small_network
from tests.unit.test_filters import catalogue_of

N_KNOWN, N_NEW = 300, 60
N_ALL = N_KNOWN + N_NEW
HISTORY = [3, 1, 4]


def two_models(seed: int = 0) -> tuple[ServingModel, ServingModel]:
    """Return a model with new items, and a model whose own items have the same ids and rows."""
    network = random_network(Dims(n_users=1, n_items=N_ALL, gmf_dim=6, mlp_dim=4, hidden_dims=(6, 3)), seed)
    oracle = serving_model(network, [HISTORY])
    known = ItemRows(*(array[:N_KNOWN] for array in ItemRows.of(network))).in_network(network)
    new = ItemRows(*(array[N_KNOWN:] for array in ItemRows.of(network)))
    model = replace(
        oracle,
        items=Vocabulary.of(oracle.items[:N_KNOWN]),
        network=known,
        bounds=Bounds.of(known),
        popularity=oracle.popularity[:N_KNOWN],
        new_items=NewItems.of(oracle.items[N_KNOWN:], known, new),
    )
    return model, oracle


def ids(items: list[Any]) -> list[str]:
    return [item.item_id for item in items]


def is_new(item_id: str) -> bool:
    return int(item_id[1:]) >= N_KNOWN


CASES: list[dict[str, Any]] = [
    {},
    {"exclude_seen": False},
    {"recent_items": ["i320", "i7", "i301", "unknown"]},
    {"exclude_items": ["i300", "i299", "i301", "i2"]},
    {"candidates": [f"i{item}" for item in range(250, 340)]},
    {"user_id": "unknown", "recent_items": ["i310"]},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_without_a_limit_new_items_are_ranked_like_all_others(case: dict[str, Any], seed: int) -> None:
    model, oracle = two_models(seed)
    arguments = {"user_id": "u0", "n": 40, **case}
    generator = np.random.default_rng(seed)
    groups = generator.integers(-1, 8, N_ALL).astype(np.int32)
    for constraints in (
        Constraints(),
        Constraints(eligible=generator.random(N_ALL) < 0.4),
        Constraints(limits=(GroupLimit(groups, 3),)),
        Constraints(limits=(GroupLimit(groups, 3),), diversity=0.4),
    ):
        found = recommend(model, **arguments, constraints=constraints._replace(exploration=1.0))
        assert found == recommend(oracle, **arguments, constraints=constraints)


def test_items_similar_to_a_new_item_are_found_whatever_the_exploration() -> None:
    model, oracle = two_models()
    everything = similar(oracle, "i333", n=N_ALL)
    assert similar(model, "i333", n=20, constraints=Constraints(exploration=1.0)) == everything[:20]
    known = [item for item in everything if not is_new(item.item_id)]
    assert ids(similar(model, "i333", n=20)) == ids(known[:20])


@pytest.mark.parametrize(
    ("exploration", "n", "most"), [(0.0, 20, 0), (0.1, 9, 0), (0.1, 20, 2), (0.15, 40, 6), (0.07, 100, 7)]
)
def test_a_list_has_at_most_its_share_of_new_items_and_keeps_the_order(exploration: float, n: int, most: int) -> None:
    model, oracle = two_models(2)
    ranking = ids(recommend(oracle, "u0", n=N_ALL).items)
    allowed = [item_id for item_id in ranking if is_new(item_id)][:most]
    expected = [item_id for item_id in ranking if not is_new(item_id) or item_id in allowed][:n]
    found = ids(recommend(model, "u0", n=n, constraints=Constraints(exploration=exploration)).items)
    assert found == expected
    assert sum(map(is_new, found)) == most


@pytest.mark.parametrize("exploration", [0.01, 0.2])
def test_new_items_fill_a_list_that_has_too_few_others(exploration: float) -> None:
    model, oracle = two_models()
    eligible = np.arange(N_ALL) >= N_KNOWN - 2
    ranking = ids(recommend(oracle, "u0", n=N_ALL, constraints=Constraints(eligible)).items)
    filling = [item_id for item_id in ranking if is_new(item_id)][:8]
    found = recommend(model, "u0", n=10, constraints=Constraints(eligible, exploration=exploration)).items
    assert ids(found) == [item_id for item_id in ranking if item_id in filling or not is_new(item_id)]
    without = recommend(model, "u0", n=10, constraints=Constraints(eligible)).items
    assert ids(without) == [item_id for item_id in ranking if not is_new(item_id)]


def test_lists_of_popular_items_have_no_new_items() -> None:
    model, oracle = two_models()
    constraints = Constraints(np.ones(N_ALL, dtype=np.bool_), exploration=1.0)
    assert ids(popular(model, n=N_ALL, constraints=constraints).items) == ids(popular(oracle, n=N_KNOWN).items)
    assert ids(recommend(model, "unknown", n=3, constraints=constraints).items) == ids(popular(oracle, n=3).items)


# -- embeddings from attributes


def fitted(catalogue: Catalogue, item_ids: list[str], network: Network) -> ContentModel:
    arrays = fit_content(catalogue, item_ids, network, seed=0)
    assert arrays is not None
    return ContentModel.of(arrays)


def test_embeddings_are_the_ridge_regression_on_the_features() -> None:
    words = ["red", "blue", "mug", "bag", "Tea"]
    generator = np.random.default_rng(0)
    rows = [
        {"title": " ".join(generator.choice(words, 2)), "category": str(generator.choice(["x", "y"])), "price": 1}
        for _ in range(40)
    ]
    catalogue = catalogue_of(rows)
    network = random_network(Dims(n_users=1, n_items=30, gmf_dim=5, mlp_dim=3, hidden_dims=(4,)))
    content = fitted(catalogue, [f"i{row}" for row in range(30)], network)
    found = content.new_items(catalogue, np.arange(30, 40), network)

    names = [f"title={word.lower()}" for word in words] + ["category=x", "category=y"]
    matrix = np.array([[name in features for name in names] for features in features_of(catalogue, range(40))], float)
    assert found is not None
    for table, embedded in zip(ItemRows.of(network), ItemRows.of(found.network), strict=True):
        mean = table.mean(axis=0)
        # A penalty is the same as one more observation of 0 per feature.
        design = np.vstack([matrix[:30], np.sqrt(RIDGE) * np.eye(len(names))])
        targets = np.vstack([table - mean, np.zeros((len(names), table.shape[1]))])
        vectors = np.linalg.lstsq(design, targets, rcond=None)[0]
        np.testing.assert_allclose(embedded, matrix[30:] @ vectors + mean, atol=1e-5)


def test_features_are_words_tags_and_values() -> None:
    catalogue = catalogue_of(
        [{"title": "The RED mug, red!", "tags": ["New in", "sale"], "category": "Mugs & cups", "url": "https://a/b"}]
    )
    assert sorted(*features_of(catalogue, [0])) == [
        "category=Mugs & cups",
        "tags=New in",
        "tags=sale",
        "title=mug",
        "title=red",
        "title=the",
    ]


def test_an_item_without_a_known_feature_gets_no_embeddings() -> None:
    titles = ["red mug", "red bag", "blue mug", "green kettle", "red kettle", None]
    catalogue = catalogue_of([{"title": title} for title in titles])
    network = random_network(Dims(n_users=1, n_items=3, gmf_dim=2, mlp_dim=1, hidden_dims=(2,)))
    content = fitted(catalogue, ["i0", "i1", "i2"], network)
    found = content.new_items(catalogue, np.array([3, 4, 5]), network)
    assert found is not None
    assert list(found.items) == ["i4"]
    assert content.new_items(catalogue, np.array([3, 5]), network) is None
    assert fit_content(catalogue, ["i3"], network, seed=0) is None


def test_the_items_that_were_sent_last_are_new_items_if_there_are_too_many() -> None:
    catalogue = catalogue_of([{"title": "mug"}] * (MAX_NEW_ITEMS + 4))
    network = network_of([[1, 2]])
    content = fitted(catalogue, ["i0", "i1"], network)
    found = content.new_items(catalogue, np.arange(2, MAX_NEW_ITEMS + 4), network)
    assert found is not None
    assert [found.items[0], len(found.items)] == ["i4", MAX_NEW_ITEMS]


# -- over HTTP

ITEMS = OTHER_ITEMS.replace(b"pots,old,", b"pots,sale,")
"""X has a tag in common with A and B."""


def add_content(folder: Path) -> None:
    """Add the content part to a version of the items A to D."""
    arrays = fit_content(read_csv(ITEMS), ["A", "B", "C", "D"], small_network(), seed=0)
    assert arrays is not None
    write_npz(folder / artifact.CONTENT, arrays)
    artifact.write_manifest(folder, json.loads((folder / artifact.MANIFEST).read_bytes())["version"])


def read_csv(content: bytes) -> Catalogue:
    rows = list(csv.DictReader(content.decode().splitlines()))
    report = CatalogueReport(format="csv")
    return apply_updates(EMPTY, read_updates([ItemRecord(2, row) for row in rows], None, report), report)


def publish_with_content(service: Service, spoil: Callable[[Path], None] = add_content) -> ApiKey:
    key = service.new_key()
    publish(service.registry, service.store, key.key_id, service.folder / "model", service.now, spoil=spoil)
    update(service, key, ITEMS)
    return key


def answered(service: Service, key: ApiKey, **body: Any) -> list[Any]:
    response = service.client.recommend_for(str(key), **{"recent_items": ["D"], **body})
    assert response.status_code == 200, response.text
    items: list[Any] = response.json()["items"]
    return items


def item_ids(items: list[Any]) -> list[str]:
    return [item["item_id"] for item in items]


def test_a_new_item_is_recommended_with_its_attributes_and_obeys_filters(service: Service) -> None:
    key = publish_with_content(service)
    items = answered(service, key, fields=["title"])
    assert sorted(item_ids(items)) == ["A", "C", "X"]  # B is not available
    assert [item["attributes"]["title"] for item in items if item["item_id"] == "X"] == ["Old pot"]
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True)
    assert item_ids(answered(service, key, filter="category == 'pots'")) == ["X"]
    assert "X" not in item_ids(answered(service, key, filter="price < 20"))
    assert item_ids(answered(service, key, candidates=["X", "D"], n=1)) == ["X"]
    assert "X" not in item_ids(answered(service, key, exclude_items=["X"]))


def test_the_share_of_new_items_can_be_set_per_request(service: Service) -> None:
    key = publish_with_content(service)
    assert "X" not in item_ids(answered(service, key, exploration=0))
    batch = {"requests": [{"user_id": "u1"}, {"user_id": "u1", "exploration": 0.9}], "n": 3, "exploration": 0}
    results = service.client.post("/v1/recommendations/batch", str(key), json=batch).json()["results"]
    assert ["X" in item_ids(result["items"]) for result in results] == [False, True]
    plain = service.client.post("/v1/recommendations/batch", str(key), json={"requests": [{"user_id": "u1"}]}).json()
    assert plain["results"][0]["items"] == answered(service, key, user_id="u1", recent_items=[])
    for exploration, status in ((0.5, 200), (1.5, 422)):
        assert service.client.get(f"/v1/items/A/similar?exploration={exploration}", str(key)).status_code == status
    assert "X" not in item_ids(service.client.get("/v1/popular", str(key)).json()["items"])


def test_a_new_item_can_be_in_a_history_and_be_a_reason(service: Service) -> None:
    key = publish_with_content(service)
    similar_items = service.client.get("/v1/items/X/similar", str(key)).json()["items"]
    assert item_ids(similar_items) == ["A", "C", "D"]
    items = answered(service, key, recent_items=["X"], explain=True)
    assert item_ids(items) == ["A", "C", "D"]
    assert [reason["title"] for reason in items[0]["reasons"]] == ["Old pot"]
    assert service.client.get("/v1/items/Y/similar", str(key)).status_code == 404


def test_an_item_that_is_sent_after_the_training_becomes_a_new_item(service: Service) -> None:
    key = publish_with_content(service)
    answered(service, key)
    update(service, key, [{"item_id": "Y", "title": "White tea"}], method="PATCH")
    service.now.move(10)
    eventually(lambda: "Y" in item_ids(answered(service, key)))


def test_a_catalogue_that_is_sent_after_the_training_has_new_items_too(service: Service) -> None:
    key = service.published_key()
    update(service, key, ITEMS)
    assert "X" in item_ids(answered(service, key))
    update(service, key, [{"item_id": "Y", "title": "White tea"}], method="PATCH")
    service.now.move(10)
    eventually(lambda: "Y" in item_ids(answered(service, key)))
    # The content part belongs to the first version, so the second one cannot use it.
    publish(service.registry, service.store, key.key_id, service.folder / "second", service.now)
    service.now.move(10)
    eventually(lambda: "X" not in item_ids(answered(service, key)))
    update(service, key, [{"item_id": "Y", "price": 5}], method="PATCH")
    service.now.move(10)
    eventually(lambda: "X" in item_ids(answered(service, key)))


def test_a_catalogue_can_be_sent_in_parts(service: Service) -> None:
    key = service.published_key()
    update(service, key, [{"item_id": "A", "title": "Green tea"}, {"item_id": "B", "title": "Black tea"}])
    mugs = [{"item_id": "C", "title": "Blue mug"}, {"item_id": "D", "title": "Red mug"}]
    update(service, key, [*mugs, {"item_id": "Z", "title": "Old mug"}], method="PATCH")
    assert "Z" in item_ids(answered(service, key))


def test_a_change_of_availability_does_not_fit_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = service.published_key()
    update(service, key, ITEMS)
    monkeypatch.setattr(catalogue_job, "fit_content", None)
    update(service, key, [{"item_id": "A", "available": False}], method="PATCH")
    assert sorted(item_ids(answered(service, key))) == ["C", "X"]


def test_a_large_model_is_not_loaded_for_a_catalogue(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_job, "MAX_MODEL_BYTES", 100)
    key = service.published_key()
    update(service, key, ITEMS)
    assert item_ids(answered(service, key)) == ["A", "C"]


def test_a_damaged_content_part_leaves_the_model_usable(service: Service) -> None:
    def damage(folder: Path) -> None:
        add_content(folder)
        content = (folder / artifact.CONTENT).read_bytes()
        (folder / artifact.CONTENT).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    key = publish_with_content(service, damage)
    assert item_ids(answered(service, key)) == ["A", "C"]
