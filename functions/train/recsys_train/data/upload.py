"""Read an uploaded file within the limits of the settings, for a training or a validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import BinaryIO

from recsys.file_options import FileOptions
from recsys.settings import Settings
from recsys_train.data.history import KeyData
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport


def read_upload(
    open_source: Callable[[], BinaryIO],
    settings: Settings,
    *,
    options: FileOptions | None = None,
    time_left_s: Callable[[], float] = lambda: math.inf,
    key_data: KeyData | None = None,
) -> tuple[Interactions, DataReport]:
    """Open a file and read its interactions.

    Parameters
    ----------
    open_source
        Function that opens the CSV or Parquet file. The stream is closed after reading.
    settings
        Settings with the limits of the decompressed size and of the time for reading.
    options
        Options for reading the file. Options that are not set are detected.
    time_left_s
        Function that returns the seconds until the process is terminated from outside.
    key_data
        Interactions to which the file's interactions are added, and users whose rows are skipped.

    Returns
    -------
    interactions : Interactions
    report : DataReport
        See `read_interactions`.

    Raises
    ------
    InvalidData
        The file cannot be used for training.
    """
    with open_source() as stream:
        return read_interactions(
            stream,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            options=options,
            timeout_s=min(settings.read_budget_s, time_left_s()),
            key_data=key_data,
        )
