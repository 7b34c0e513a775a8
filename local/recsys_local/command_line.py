"""Define the options that several commands of `recsys` share, and print the errors of all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from recsys.errors import RecsysError

DataDir = Annotated[Path, typer.Option(help="Directory that holds all state.", envvar="RECSYS_DATA_DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_DATA_DIR = Path("recsys-data")


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Catch an expected error in the context, print its message to standard error, and exit with status 1.

    The errors of `recsys.errors` are expected, and so are errors of the operating system, such as a full disk or a
    missing permission. Any other exception is a bug and keeps its traceback.
    """
    try:
        yield
    except RecsysError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        for line in error.errors[:10]:
            column = f", column {line.column}" if line.column else ""
            print(f"  line {line.line}{column}: {line.detail}", file=sys.stderr)
        if error.hint:
            print(f"→ {error.hint}", file=sys.stderr)
        raise typer.Exit(1) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"The operating system reported an error: {where}{error.strerror or error}.", file=sys.stderr)
        print("→ Check the path, its permissions and the free disk space, then run the command again.", file=sys.stderr)
        raise typer.Exit(1) from error
