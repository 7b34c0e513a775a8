"""The item catalogue of a key, which holds items and columns of attributes, and functions that read and write it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.columns import Column, Kind, column_of, texts_of
from recsys.errors import ArtifactDamaged
from recsys.model.array_file import view_npz, write_npz
from recsys.model.vocabulary import Vocabulary

FORMAT: Final = 1
"""Number of the file format. A server reads files of this format only."""
AVAILABLE: Final = "available"
"""Name of the column that says whether an item is available. Items that are not available are never recommended."""
TITLE: Final = "title"
KNOWN_KINDS: Final[Mapping[str, Kind]] = {
    TITLE: Kind.TEXT,
    "url": Kind.TEXT,
    "image_url": Kind.TEXT,
    "category": Kind.TEXT,
    "tags": Kind.TAGS,
    "price": Kind.NUMBER,
    AVAILABLE: Kind.BOOLEAN,
}
"""Kinds of the columns that have a meaning for the service, by name."""
CATALOGUE_HINT: Final = "Send the catalogue again with PUT /v1/items."


class FittedContent(NamedTuple):
    """The arrays of a content part, and the model version to which they were fitted; see `recsys.catalogue.content`."""

    model_version: str
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Items and their attributes. The index of an item in `items` is its row in every column.

    Parameters
    ----------
    items
        Item ids.
    columns
        Columns by name, in the order in which they were first sent.
    size_bytes
        Memory of the arrays, in bytes.
    content
        Content part of the key's model, if the artifact of the model contains none because the key had no catalogue
        when the model was trained.
    """

    items: Vocabulary
    columns: Mapping[str, Column]
    size_bytes: int = 0
    content: FittedContent | None = None

    def attributes(self, row: int, names: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return the attributes of an item as JSON values, by column.

        A missing value is None, and missing tags are an empty list.

        Parameters
        ----------
        row
            Row of the item.
        names
            Names of the columns to return. None means all columns.
        """
        chosen = self.columns if names is None else names
        return {name: self.columns[name].value(row) for name in chosen}


EMPTY: Final = Catalogue(Vocabulary.of([]), {})


def write_catalogue(catalogue: Catalogue) -> bytes:
    """Return a catalogue as the content of an `.npz` file of numeric arrays; see `recsys.model.array_file`.

    The array `schema` contains a JSON object in UTF-8 with the format and with the name and kind of each column. If the
    file contains a content part, the object also names the model version of the content part.

    Examples
    --------
    >>> content = write_catalogue(EMPTY)
    >>> len(read_catalogue(content, sha256=hashlib.sha256(content).hexdigest()).items)
    0
    """
    schema: dict[str, Any] = {
        "format": FORMAT,
        "columns": [{"name": name, "kind": column.kind} for name, column in catalogue.columns.items()],
    }
    items, content = catalogue.items, catalogue.content
    if content is not None:
        schema["content_of"] = content.model_version
    arrays: dict[str, NDArray[Any]] = {
        "schema": np.frombuffer(json.dumps(schema, ensure_ascii=False).encode(), dtype=np.uint8),
        "items_text": items.text,
        "items_text_starts": items.starts,
        "items_text_order": items.order,
    }
    for position, column in enumerate(catalogue.columns.values()):
        arrays |= {f"column{position}_{name}": array for name, array in column.arrays().items()}
    if content is not None:
        arrays |= {f"content_{name}": array for name, array in content.arrays.items()}
    with tempfile.TemporaryDirectory(prefix="recsys-catalogue-") as folder:
        path = Path(folder) / "items.npz"
        write_npz(path, arrays)
        return path.read_bytes()


def read_catalogue(content: bytes, *, sha256: str) -> Catalogue:
    """Verify the file of a catalogue, and load the catalogue.

    Parameters
    ----------
    content
        The bytes of the file.
    sha256
        Expected SHA-256 of the file in hexadecimal, from the registry.

    Returns
    -------
    Catalogue
        The catalogue, whose arrays are views of `content`.

    Raises
    ------
    ArtifactDamaged
        The file does not match `sha256`, has another format, or contains inconsistent arrays.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactDamaged(
            "The SHA-256 of the item catalogue differs from the digest in the registry.", hint=CATALOGUE_HINT
        )
    try:
        arrays = view_npz(content)
        schema = json.loads(arrays["schema"].tobytes())
        if schema["format"] != FORMAT:
            raise ArtifactDamaged(
                f"The item catalogue has format {schema['format']!r}; this program reads format {FORMAT}.",
                hint=CATALOGUE_HINT,
            )
        items = texts_of(_with_prefix(arrays, "items_"))
        columns = {
            str(column["name"]): column_of(Kind(column["kind"]), _with_prefix(arrays, f"column{position}_"), len(items))
            for position, column in enumerate(schema["columns"])
        }
        version = schema.get("content_of")
        fitted = None if version is None else FittedContent(str(version), _with_prefix(arrays, "content_"))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactDamaged(f"The item catalogue is invalid: {error}.", hint=CATALOGUE_HINT) from error
    return Catalogue(items, columns, len(content), fitted)


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
