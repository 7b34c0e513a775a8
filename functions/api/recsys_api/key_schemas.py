"""JSON bodies of the routes for API keys and scoped keys."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from recsys.clock import DAY_S, Timestamp
from recsys.http.json_numbers import whole_number
from recsys.http.origins import MAX_ORIGIN_LENGTH, ORIGIN_PATTERN, is_origin
from recsys.registry import excluded_items
from recsys.registry.key_record import KeyRecord
from recsys.registry.scoped_keys import MAX_SCOPED_KEYS, Scope, ScopedKey
from recsys_api.schema_fields import CreatedAt, CurrentVersion, KeyId, NewApiKey, StrictRequest

KEY_REVOKED: Final = "The key was revoked or expired while the request was processed."
"""Description of status 404 on the routes that authenticate the key again when they change it."""
MAX_ORIGINS: Final = 10
"""Maximum number of origins per scoped key."""
_MAX_OVERLAP_S: Final = 7 * DAY_S
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
_Origin = Annotated[str, Field(max_length=MAX_ORIGIN_LENGTH, pattern=ORIGIN_PATTERN)]


class RotateRequest(StrictRequest):
    """Options of a key rotation."""

    overlap_s: Annotated[
        int,
        Field(
            ge=0,
            le=_MAX_OVERLAP_S,
            description="Time for which the previous secret remains valid, in seconds. Default: one day. Maximum: "
            "seven days.",
        ),
        BeforeValidator(whole_number),
    ] = DAY_S


class ClaimRequest(StrictRequest):
    """Body of a request that claims an API key."""

    claim_token: Annotated[
        str, Field(min_length=1, max_length=200, description="`claim_token` from the receipt of the import.")
    ]


class ScopedKeyRequest(StrictRequest):
    """A scoped key to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"scope": {"const": Scope.TRAIN}}},
            "then": {"properties": {"origins": {"maxItems": 0}}},
        }
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=100, pattern=_PRINTABLE, description="Name of the key, such as `shop page`."),
    ]
    # Not strict, because JSON has no enumerations.
    scope: Annotated[
        Scope,
        Field(
            strict=False,
            description="`recommend` creates a publishable key, which may be part of a web page and permits only "
            "requests for recommendations. `train` creates a key that permits uploading data and reading the jobs that "
            "result.",
        ),
    ]
    origins: list[_Origin] = Field(
        [],
        max_length=MAX_ORIGINS,
        description="Origins of the web pages that may use a `recommend` key, such as `https://shop.example`. "
        "Requests from pages of other origins are rejected. With an empty list, requests from all origins are "
        "accepted, but only pages of the origins that the operator permits can read the responses.",
    )

    @field_validator("origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not is_origin(origin):
                raise ValueError(
                    "an origin must not contain the default port: write https://shop.example, not https://shop.example:443"
                )
        return list(dict.fromkeys(origins))

    @model_validator(mode="after")
    def _check_scope(self) -> Self:
        if self.origins and self.scope is not Scope.RECOMMEND:
            raise ValueError(
                "only keys with the scope `recommend` can have origins, because only they can be used by web pages"
            )
        return self


class KeyBody(BaseModel):
    """An API key, without its secret."""

    key_id: KeyId
    created_at: CreatedAt
    current_version: CurrentVersion
    catalogue_version: Annotated[
        str | None, Field(description="Version of the item catalogue; null if the key has none.")
    ]
    expires_at: Annotated[
        str | None,
        Field(
            description="Time at which a key without a published model expires; null as soon as the "
            "first model is published."
        ),
    ]
    previous_key_expires_at: Annotated[
        str | None,
        Field(
            description="Time at which the previous secret of a rotated key expires; null if only the current secret "
            "is valid."
        ),
    ]
    exclude_items: Annotated[
        list[str],
        Field(
            description="Item ids whose rows were skipped in the training of the current version. They are also "
            "skipped in later files."
        ),
    ]

    @classmethod
    def of(cls, key: KeyRecord, *, now: Timestamp) -> KeyBody:
        """Return the body that describes a key at the time `now`."""
        is_overlapping = key.previous_expires_at is not None and now < key.previous_expires_at
        return cls(
            key_id=key.key_id,
            created_at=key.created_at,
            current_version=key.current_version,
            catalogue_version=key.catalogue_version,
            expires_at=key.expires_at,
            previous_key_expires_at=key.previous_expires_at if is_overlapping else None,
            exclude_items=list(excluded_items.parse(key.excluded_items)),
        )


class KeyIssued(BaseModel):
    """A newly issued API key."""

    key_id: KeyId
    api_key: NewApiKey


class ScopedKeyBody(BaseModel):
    """A scoped key, without its secret."""

    scoped_key_id: Annotated[str, Field(description="Public id of the scoped key, which is part of the key itself.")]
    name: Annotated[str, Field(description="Name of the scoped key.")]
    scope: Annotated[Scope, Field(description="Operations that the key permits.")]
    origins: Annotated[
        list[str],
        Field(description="Origins of the web pages that may use the key; empty if the key is not limited to origins."),
    ]
    created_at: CreatedAt

    @classmethod
    def of(cls, key: ScopedKey) -> ScopedKeyBody:
        """Return the body that describes a scoped key."""
        return cls(**_scoped_key_members(key))


class ScopedKeyIssued(ScopedKeyBody):
    """A newly issued scoped key."""

    api_key: NewApiKey

    @classmethod
    def issued(cls, key: ScopedKey, text: str) -> ScopedKeyIssued:
        """Return the body that describes a new scoped key. `text` is the key in clear text."""
        return cls(**_scoped_key_members(key), api_key=text)


class ScopedKeysBody(BaseModel):
    """All scoped keys of an API key."""

    keys: Annotated[
        list[ScopedKeyBody], Field(description=f"The scoped keys, oldest first; at most {MAX_SCOPED_KEYS}.")
    ]


def _scoped_key_members(key: ScopedKey) -> dict[str, Any]:
    return {
        "scoped_key_id": key.scoped_key_id,
        "name": key.name,
        "scope": key.scope,
        "origins": list(key.origins),
        "created_at": key.created_at,
    }
