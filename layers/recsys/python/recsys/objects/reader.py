"""What recommending needs of an object store. `tests/contract/test_readers.py` says it in tests."""

from __future__ import annotations

from typing import Protocol


class ObjectReader(Protocol):
    """Objects that can be read."""

    def read(self, name: str) -> bytes:
        """The whole object; raises `Unavailable` when the store does not answer.

        Raises
        ------
        ObjectNotFound
        """
