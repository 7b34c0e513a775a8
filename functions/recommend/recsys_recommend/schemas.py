"""Define the JSON bodies and the query parameters of the routes.

Unknown fields are rejected, and so are numbers in place of ids. `defer_build` makes each model build its validator at
the first use, so that a cold start builds only one of the five validators.
"""

# No `from __future__ import annotations`: Pydantic would evaluate each annotation as text, for 1 ms of a cold start.
import warnings
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.warnings import UnsupportedFieldAttributeWarning

from recsys.http.json_numbers import whole_number

# FastAPI hides this warning while it adds a route. A deferred validator is built later, and would show it.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)

MAX_N: Final = 1000
MAX_RECENT: Final = 200
MAX_EXCLUDED: Final = 10_000
MAX_CANDIDATES: Final = 10_000
MAX_BATCH: Final = 1000
MAX_PAGE: Final = 1000
MAX_FIELDS: Final = 50
MAX_FILTER_LENGTH: Final = 2000
MAX_LIMITS: Final = 5
MAX_BATCH_ITEMS: Final = 20_000
"""Largest number of items in all results of a batch together. A Lambda response is limited to 6 MB."""

_Ids = list[str]
_Strict: Final = ConfigDict(extra="forbid", strict=True, defer_build=True)
# `anyOf` only documents that a user or recent items are required. `recsys_recommend.queries` checks this requirement,
# and names the missing field.
_NamesUserOrItems: Final = ConfigDict(
    extra="forbid",
    strict=True,
    defer_build=True,
    json_schema_extra={
        "anyOf": [
            {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
            {"required": ["recent_items"], "properties": {"recent_items": {"minItems": 1}}},
        ]
    },
)

UserId = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    Field(description="The user's id, exactly as in the training data; null for a basket without a user."),
]
RecentItems = Annotated[
    _Ids,
    Field(
        max_length=MAX_RECENT,
        description="Ids of the items in the basket, or of the items with which the user interacted since the "
        "training, oldest first.",
    ),
]
Count = Annotated[
    int,
    Field(ge=1, le=MAX_N, description="Number of items to return."),
    BeforeValidator(whole_number),
]
ExcludeSeen = Annotated[
    bool, Field(description="Whether to leave out items that the user interacted with, including `recent_items`.")
]
ExcludedItems = Annotated[
    _Ids, Field(max_length=MAX_EXCLUDED, description="Ids of items to leave out. Unknown ids are ignored.")
]
Candidates = Annotated[
    Annotated[_Ids, Field(max_length=MAX_CANDIDATES)] | None,
    Field(description="Ids of the items to rank; null means all items. Unknown ids are ignored."),
]


Fields = Annotated[
    _Ids,
    Field(
        max_length=MAX_FIELDS,
        description="Columns of the item catalogue to return with each item, as its `attributes`.",
        examples=[["title", "price"]],
    ),
]
Filter = Annotated[
    Annotated[str, Field(min_length=1, max_length=MAX_FILTER_LENGTH)] | None,
    Field(
        description="Expression that each item must fulfil, such as `price < 20 and category in ['tea', 'mugs']`. "
        "Default: all items.",
    ),
]
_Most = Annotated[int, Field(ge=1, le=MAX_N), BeforeValidator(whole_number)]
MaxPer = Annotated[
    dict[str, _Most],
    Field(
        max_length=MAX_LIMITS,
        description='Largest number of items with the same value of a column, such as `{"category": 2}`. Items '
        "without a value are not limited.",
    ),
]
Diversity = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        strict=False,
        description="Weight of diversity against relevance: 0 ranks by score alone, 1 by dissimilarity alone.",
    ),
]
IncludeUnavailable = Annotated[
    bool, Field(description="Whether to include items whose attribute `available` is false in the catalogue.")
]
Exploration = Annotated[
    Annotated[float, Field(ge=0, le=1, strict=False)] | None,
    Field(
        description="Largest share of new items in the list. A new item is an item of the catalogue without "
        "interactions. Default: the value that the operator of the service has set. Lists of popular items contain no "
        "new items.",
    ),
]
Explain = Annotated[
    bool,
    Field(description="Whether to return, for each item, the items of the history that contribute most to its score."),
]


class RecommendationRequest(BaseModel):
    """A request for recommendations. At least one of `user_id` and `recent_items` is required."""

    model_config = _NamesUserOrItems

    user_id: UserId = None
    recent_items: RecentItems = []
    n: Count = 10
    exclude_seen: ExcludeSeen = True
    exclude_items: ExcludedItems = []
    candidates: Candidates = None
    fields: Fields = []
    filter: Filter = None
    max_per: MaxPer = {}
    diversity: Diversity = 0.0
    include_unavailable: IncludeUnavailable = False
    explain: Explain = False
    exploration: Exploration = None


class BatchEntry(BaseModel):
    """One request in a batch."""

    model_config = _NamesUserOrItems

    user_id: UserId = None
    recent_items: RecentItems = []
    n: Annotated[Count | None, Field(description="Overrides the batch's `n`.")] = None
    exclude_seen: Annotated[ExcludeSeen | None, Field(description="Overrides the batch's `exclude_seen`.")] = None
    exclude_items: Annotated[ExcludedItems | None, Field(description="Overrides the batch's `exclude_items`.")] = None
    candidates: Annotated[Candidates, Field(description="Overrides the batch's `candidates`.")] = None
    fields: Annotated[Fields | None, Field(description="Overrides the batch's `fields`.")] = None
    filter: Annotated[Filter, Field(description="Overrides the batch's `filter`.")] = None
    max_per: Annotated[MaxPer | None, Field(description="Overrides the batch's `max_per`.")] = None
    diversity: Annotated[Diversity | None, Field(description="Overrides the batch's `diversity`.")] = None
    include_unavailable: Annotated[
        IncludeUnavailable | None, Field(description="Overrides the batch's `include_unavailable`.")
    ] = None
    explain: Annotated[Explain | None, Field(description="Overrides the batch's `explain`.")] = None
    exploration: Annotated[Exploration, Field(description="Overrides the batch's `exploration`.")] = None


class BatchRequest(BaseModel):
    """A batch of requests for recommendations, with default options."""

    model_config = _Strict

    requests: Annotated[
        list[BatchEntry], Field(min_length=1, max_length=MAX_BATCH, description="The requests, at most 1,000.")
    ]
    n: Count = 10
    exclude_seen: ExcludeSeen = True
    exclude_items: ExcludedItems = []
    candidates: Candidates = None
    fields: Fields = []
    filter: Filter = None
    max_per: MaxPer = {}
    diversity: Diversity = 0.0
    include_unavailable: IncludeUnavailable = False
    explain: Explain = False
    exploration: Exploration = None


class ListParameters(BaseModel):
    """Query parameters of a list of items."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    n: Count = 10
    exclude_items: ExcludedItems = []
    fields: Fields = []
    filter: Filter = None
    max_per: Annotated[
        list[Annotated[str, Field(pattern=r"^.+:[1-9][0-9]{0,3}$")]],
        Field(
            max_length=MAX_LIMITS,
            description="Largest number of items with the same value of a column, as `column:number`, such as "
            "`category:2`.",
        ),
    ] = []
    diversity: Diversity = 0.0
    include_unavailable: IncludeUnavailable = False
    exploration: Exploration = None


class CatalogueParameters(BaseModel):
    """Query parameters of a page of the item catalogue."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="Number of items to return.")] = 100
    cursor: Annotated[
        Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None,
        Field(description="`next` of the previous page. Default: the first page."),
    ] = None
