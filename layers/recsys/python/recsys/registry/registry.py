"""The registry of keys, jobs, model versions and item catalogues, in any database that implements `Table`."""

from __future__ import annotations

from recsys.registry.catalogues import CatalogueOperations
from recsys.registry.jobs import JobOperations
from recsys.registry.keys import KeyOperations
from recsys.registry.versions import Published, VersionOperations

__all__ = ["Published", "Registry"]


class Registry(KeyOperations, JobOperations, VersionOperations, CatalogueOperations):
    """The registry of keys, jobs, model versions and item catalogues, stored in a `Table`.

    Every method raises `Unavailable` if the database does not respond.

    Parameters
    ----------
    table
        The database.
    clock
        Function that returns the current time.
    audit_days
        Days for which the events of the audit log are kept.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from recsys.clock import utc_now
    >>> from recsys.registry.key_record import KeyRecord
    >>> from recsys.registry.sqlite import SqliteTable
    >>> with TemporaryDirectory() as folder:
    ...     table = SqliteTable(Path(folder) / "registry.sqlite3")
    ...     registry = Registry(table)
    ...     registry.create_key(KeyRecord("key1", utc_now()))
    ...     registry.get_key("key1").revision
    ...     table.close()
    0
    """
