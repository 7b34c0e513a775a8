"""Define the options that restrict, diversify or describe the items of a list, and apply these options to a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from recsys.errors import NoCatalogue
from recsys.model.choosing import UNCONSTRAINED, Constraints, GroupLimit
from recsys.model.recommender import RankedItem, ServingModel

if TYPE_CHECKING:  # the imports would lengthen the cold start of a key without a catalogue
    from recsys.model.neumf import ItemIndices
    from recsys_recommend.filtering.bound import BoundCatalogue

_TITLE: Final = "title"


class ItemOptions(NamedTuple):
    """Options that restrict or diversify the items of a list, or add attributes and reasons to the items.

    Parameters
    ----------
    fields
        Attributes to return with each item.
    filter
        Expression that each item must fulfil, or None.
    max_per
        Largest number of items with the same value in a column, by the name of the column.
    diversity
        Weight of diversity against relevance, in [0, 1].
    include_unavailable
        Whether the list may contain items whose attribute `available` is false.
    explain
        Whether to return, for each item, the items of the history that contribute most to its score.
    exploration
        Largest share of new items in the list, in [0, 1]. None means the value of `Settings.exploration`.
    """

    fields: Sequence[str] = []
    filter: str | None = None
    max_per: Mapping[str, int] = {}
    diversity: float = 0.0
    include_unavailable: bool = False
    explain: bool = False
    exploration: float | None = None

    def cache_fields(self) -> tuple[Any, ...]:
        """Return the values of all fields, because a response depends on each field."""
        limits = sorted(self.max_per.items())
        shown = (list(self.fields), self.filter, limits, self.diversity, self.include_unavailable, self.explain)
        return (*shown, self.exploration)


DEFAULT: Final = ItemOptions()


def constraints_of(options: ItemOptions, catalogue: BoundCatalogue | None) -> Constraints:
    """Return the constraints that the options and the availability of items impose on a list.

    Raises
    ------
    NoCatalogue
        The options use attributes, and the key has no catalogue.
    InvalidRequest
        The filter is not valid, or a column does not exist.
    """
    if catalogue is None:
        if options.fields or options.filter is not None or options.max_per:
            raise NoCatalogue("The request uses attributes of items, but this key has no item catalogue.")
        return Constraints(diversity=options.diversity) if options.diversity else UNCONSTRAINED
    eligible = catalogue.eligible(options.filter, include_unavailable=options.include_unavailable)
    limits = tuple(
        GroupLimit(catalogue.groups(name, f"/max_per/{name}"), most) for name, most in options.max_per.items()
    )
    exploration = catalogue.exploration if options.exploration is None else options.exploration
    return Constraints(eligible, limits, options.diversity, exploration)


def describe_items(
    model: ServingModel,
    items: Sequence[RankedItem],
    options: ItemOptions,
    catalogue: BoundCatalogue | None,
    history: ItemIndices | None = None,
) -> list[dict[str, Any]]:
    """Return the items of a response, with the attributes and reasons that the options request.

    The reasons of an item are the items of the user's history that contribute most to its score. `history` contains the
    indices of the items in the history, oldest first. Without `history`, no reasons are returned.
    """
    bodies: list[dict[str, Any]] = [{"item_id": item.item_id, "rank": item.rank, "score": item.score} for item in items]
    if not options.fields and not options.explain:
        return bodies
    indices = [index for item in items if (index := model.find_item(item.item_id)) is not None]
    if options.fields and catalogue is not None:
        for body, attributes in zip(bodies, catalogue.attributes(indices, tuple(options.fields)), strict=True):
            body["attributes"] = attributes
    if options.explain and history is not None:
        for body, reasons in zip(bodies, _reasons(model, history, indices, catalogue), strict=True):
            body["reasons"] = reasons
    return bodies


def _reasons(
    model: ServingModel, history: ItemIndices, items: list[int], catalogue: BoundCatalogue | None
) -> list[list[dict[str, Any]]]:
    from recsys.model.explanations import explain  # noqa: PLC0415  # few requests need it

    has_titles = catalogue is not None and _TITLE in catalogue.catalogue.columns

    def to_body(item_index: int, contribution: float) -> dict[str, Any]:
        item_id = model.item_ids(np.array([item_index]))[0]
        body: dict[str, Any] = {"item_id": item_id, "contribution": contribution}
        if has_titles and catalogue is not None:
            body["title"] = catalogue.attributes([item_index], (_TITLE,))[0][_TITLE]
        return body

    indices = np.concatenate([history, np.array(items, dtype=np.int64)])
    positions = np.arange(len(indices))
    explained = explain(model.network_of(indices), positions[: len(history)], positions[len(history) :])
    return [[to_body(int(history[position]), part) for position, part in reasons] for reasons in explained]
