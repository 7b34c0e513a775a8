"""Train and recommend without a running service. The input and the results are files."""

from __future__ import annotations

import contextlib
import csv
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from recsys.errors import InvalidRequest, RecsysError
from recsys.file_options import FileOptions, Mode
from recsys.model import artifact
from recsys.model.recommender import Recommendations
from recsys.registry.records import Progress
from recsys.settings import Settings

FILE_VERSION: Final = "local.1"
"""Version name in the manifest of a model that was trained without a service."""


class OutputNotWritable(RecsysError):
    """Raised when the result of a command cannot be written to the requested path."""

    code = "output-not-writable"
    title = "The output cannot be written"
    default_hint = "Pass an --out that you may write to, on a disk with free space."


def train_folder(
    source: Path,
    folder: Path,
    settings: Settings,
    on_progress: Callable[[Progress], None],
    options: FileOptions | None = None,
) -> dict[str, Any]:
    """Train a model on a file, and write the files of the model to `folder`.

    With `mode=append`, the file is added to the interactions of the model that `folder` already contains, if there is
    one.

    Parameters
    ----------
    source
        CSV or Parquet file of interactions, plain or compressed.
    folder
        Directory to write to. It is created if it does not exist.
    settings
        Limits, time budget and seed of the training.
    on_progress
        Function that is called with every progress report.
    options
        Options for reading the file. Options that are not set are detected.

    Returns
    -------
    dict
        The metrics, as in `metrics.json`.

    Raises
    ------
    InvalidData
        The file cannot be used for training. Nothing was written.
    OutputNotWritable
        `folder` cannot be written. This is checked before the training starts.
    """
    from recsys_train.build import build_version  # noqa: PLC0415  # importing TensorFlow takes seconds
    from recsys_train.data.history import History, KeyData  # noqa: PLC0415  # imports pyarrow

    check_writable(folder)
    is_append = options is not None and options.mode == Mode.APPEND
    kept = folder / artifact.INTERACTIONS
    if is_append and not kept.exists() and (folder / artifact.MANIFEST).exists():
        raise InvalidRequest(
            f"mode=append needs {kept}, which is missing because an earlier release trained the model in {folder}.",
            hint="Train once on all data with mode=replace. Later files can then be added to this data.",
        )
    with _reporting_unwritable(folder), tempfile.TemporaryDirectory(prefix="recsys-train-") as scratch:
        built = build_version(
            lambda: source.open("rb"),
            Path(scratch) if is_append else folder,
            FILE_VERSION,
            settings,
            on_progress,
            options=options,
            key_data=KeyData(History(kept, FILE_VERSION)) if is_append and kept.exists() else None,
        )
        if is_append:
            _move_version(Path(scratch), folder)
    return built.metrics


def _move_version(source: Path, folder: Path) -> None:
    """Move the files of a version, starting with the interactions.

    If the move is interrupted, the caller can repeat the training with the same file to restore a complete version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (artifact.INTERACTIONS, *artifact.LISTED_FILES[:-1], artifact.MANIFEST):
        partial = folder / f".{name}.part"
        shutil.move(source / name, partial)
        partial.replace(folder / name)


def read_options(
    user: str | None, item: str | None, time: str | None, score: str | None, others: list[str] | None
) -> FileOptions:
    """Return the file options of a command. `others` contains options in the form `name=value`.

    Raises
    ------
    InvalidRequest
        An option is unknown or has an invalid value.

    Examples
    --------
    >>> read_options("customer", None, None, None, ["min_score=4"]).to_json()
    {'user': 'customer', 'min_score': 4.0}
    """
    columns = {"user": user, "item": item, "time": time, "score": score}
    pairs = [text.partition("=")[::2] for text in others or ()]
    return FileOptions.of(columns | dict(pairs))


def validate_file(source: Path, settings: Settings, options: FileOptions) -> dict[str, Any]:
    """Read a file exactly as training does, and return the data report. No model is trained.

    Raises
    ------
    InvalidData
        The file cannot be used for training.
    """
    from recsys_train.data.upload import read_upload  # noqa: PLC0415  # importing pandas takes half a second

    _, report = read_upload(lambda: source.open("rb"), settings, options=options)
    return report.to_json()


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of text that `recsys validate` prints for a data report."""
    columns = ", ".join(f"{role}={name}" for role, name in report["mapping"].items())
    yield f"columns        {columns} (by {report['mapping_source']})"
    yield f"format         {', '.join(f'{name} {value!r}' for name, value in report['format'].items())}"
    yield f"lines          {report['lines']:,} read, {report['rows_used']:,} used, {report['bad_lines']:,} bad"
    for rule, skipped in report["skipped"].items():
        first = ", ".join(str(line) for line in skipped["lines"][:5])
        yield f"skipped        {skipped['count']:,} {rule} (lines {first}{' …' if skipped['count'] > 5 else ''})"
    yield f"interactions   {report['interactions']:,} distinct, {report['duplicates']:,} repeated"
    yield f"users          {report['users']:,}, {report['users_with_one_interaction']:,} with one interaction"
    yield f"items          {report['items']:,}"
    if report["first_time"]:
        yield f"time           {report['first_time']} to {report['last_time']}"
    if report["density"]:
        yield f"density        {100 * report['density']:.3g}% of all pairs of a user and an item"
    for finding in (*report["warnings"], *report["advice"]):
        yield finding["text"]


def read_users(path: Path) -> list[str]:
    """Return the user ids that a CSV file lists. A byte order mark at the start of the file is ignored.

    Raises
    ------
    InvalidRequest
        The file is not UTF-8, or has no column `user_id`.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return read_user_ids(stream)


def read_user_ids(stream: TextIO) -> list[str]:
    r"""Return the values of the column `user_id` of a CSV in file order, without empty values.

    Parameters
    ----------
    stream
        Text stream that starts with the header. Case and surrounding spaces in the header are ignored.

    Raises
    ------
    InvalidRequest
        The stream is not UTF-8, or has no column `user_id`.

    Examples
    --------
    >>> import io
    >>> read_user_ids(io.StringIO("user_id,name\n007,Anna\n42,Ben\n"))
    ['007', '42']
    """
    try:
        rows = list(csv.reader(stream))
    except UnicodeDecodeError as error:
        raise InvalidRequest("The file of users is not UTF-8 text.", hint="Save the file as CSV in UTF-8.") from error
    header = [name.strip().casefold() for name in (rows[0] if rows else [])]
    if "user_id" not in header:
        raise InvalidRequest(
            f"Column user_id is missing. Found: {', '.join(header) or 'nothing'}.",
            code="missing-column",
            hint="Write user_id in the first line of the CSV and one user id on each line below.",
        )
    position = header.index("user_id")
    return [row[position] for row in rows[1:] if len(row) > position and row[position]]


def write_recommendations(path: Path, recommendations: Iterator[Recommendations]) -> int:
    """Write recommendations as a CSV with the columns `user_id,item_id,rank,score`.

    Parameters
    ----------
    path
        File to create or overwrite.
    recommendations
        One result per user. The items of each result are in order, best first.

    Returns
    -------
    int
        Number of rows below the header.

    Raises
    ------
    OutputNotWritable
        The file cannot be written, for example because the disk is full. An incomplete file is deleted.
    """
    n_rows = 0
    with _reporting_unwritable(path), path.open("w", newline="", encoding="utf-8") as stream:
        try:
            writer = csv.writer(stream)
            writer.writerow(["user_id", "item_id", "rank", "score"])
            for result in recommendations:
                for item in result.items:
                    writer.writerow([result.user_id, item.item_id, item.rank, f"{item.score:.6g}"])
                    n_rows += 1
            stream.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return n_rows


def check_writable(folder: Path) -> None:
    """Check that files can be created in `folder`. If it does not exist yet, check its nearest existing parent.

    Raises
    ------
    OutputNotWritable
        A file cannot be created in this folder.
    """
    existing = nearest_existing(folder)
    with _reporting_unwritable(folder), tempfile.TemporaryFile(dir=existing):
        pass


def nearest_existing(path: Path) -> Path:
    """Return the absolute `path` if it exists, otherwise its nearest existing parent."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.exists())


@contextlib.contextmanager
def _reporting_unwritable(path: Path) -> Iterator[None]:
    """Translate an `OSError` in the context into `OutputNotWritable`."""
    try:
        yield
    except OSError as error:
        raise OutputNotWritable(f"{path} cannot be written: {error.strerror or error}.") from error
