"""Contract of the registry: scoped keys, on every adapter."""

from __future__ import annotations

import pytest

from recsys.errors import KeyNotFound, ScopedKeyNotFound, TooManyScopedKeys
from recsys.registry.registry import Registry
from recsys.registry.scoped_keys import MAX_SCOPED_KEYS, Scope, ScopedKey
from tests.contract.records import NOW, a_key

PAGE = ScopedKey("page0000", "größe", Scope.RECOMMEND, "a" * 64, NOW, ("https://shop.example",))
UPLOAD = ScopedKey("upload00", "nightly", Scope.TRAIN, "b" * 64, NOW)


def test_a_scoped_key_is_part_of_the_key(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.add_scoped_key("key1", PAGE)
    registry.add_scoped_key("key1", UPLOAD)
    assert registry.get_key("key1") == a_key(revision=2, scoped_keys=(PAGE, UPLOAD))


def test_adding_a_scoped_key_again_changes_nothing(registry: Registry) -> None:
    registry.create_key(a_key())
    assert registry.add_scoped_key("key1", PAGE) == registry.add_scoped_key("key1", PAGE)


def test_a_removed_scoped_key_is_gone(registry: Registry) -> None:
    registry.create_key(a_key(scoped_keys=(PAGE, UPLOAD)))
    registry.remove_scoped_key("key1", "page0000")
    assert registry.get_key("key1") == a_key(revision=1, scoped_keys=(UPLOAD,))
    with pytest.raises(ScopedKeyNotFound):
        registry.remove_scoped_key("key1", "page0000")


def test_the_number_of_scoped_keys_is_limited(registry: Registry) -> None:
    full = tuple(ScopedKey(f"{n:08}", "page", Scope.RECOMMEND, f"{n:064}", NOW) for n in range(MAX_SCOPED_KEYS))
    registry.create_key(a_key(scoped_keys=full))
    with pytest.raises(TooManyScopedKeys):
        registry.add_scoped_key("key1", PAGE)
    assert registry.get_key("key1").scoped_keys == full


def test_scoped_keys_outlive_a_rotation(registry: Registry) -> None:
    registry.create_key(a_key(scoped_keys=(PAGE,)))
    assert registry.rotate_key("key1", "c" * 64, overlap_s=0).scoped_keys == (PAGE,)


def test_scoped_keys_of_a_revoked_key_cannot_be_changed(registry: Registry) -> None:
    registry.create_key(a_key(scoped_keys=(PAGE,)))
    registry.revoke_key("key1")
    for change in (
        lambda: registry.add_scoped_key("key1", UPLOAD),
        lambda: registry.remove_scoped_key("key1", "page0000"),
    ):
        with pytest.raises(KeyNotFound):
            change()
