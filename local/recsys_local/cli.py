"""The command line: `recsys serve`, `train`, `recommend`, `doctor`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from recsys.errors import RecsysError
from recsys.model import artifact
from recsys.model.batch_ranking import recommend_all
from recsys.settings import Settings
from recsys_local.offline import read_users, train_folder, write_recommendations
from recsys_local.progress import TrainingProgress, tracked

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Recommendations from a CSV."
)


def main() -> None:
    """Run a command and end the process with its status.

    The CSV reader's threads may still run Python when a command has failed; the interpreter, which aborts where a
    thread does so during its own end, is not given the time.
    """
    try:
        app()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)


DataDir = Annotated[Path, typer.Option(help="The directory that holds all state.", envvar="RECSYS_DATA_DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    public_url: Annotated[
        str, typer.Option(help="Where clients reach the service, for upload forms; else its own address.")
    ] = "",
    data_dir: DataDir = Path("recsys-data"),
    sample: Annotated[bool, typer.Option(help="On first start, train on the bundled Online Retail sample.")] = False,
) -> None:
    """Run the whole service on this machine: HTTP, a training worker, a watched inbox."""
    from recsys_local.service import run_service  # noqa: PLC0415  # FastAPI is not needed by the other commands

    if public_url and not public_url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"Expected http://… or https://…. Received: {public_url}", param_hint="--public-url")
    with exit_on_error():
        run_service(host, port, data_dir, public_url=public_url, sample=sample)


@app.command()
def train(
    interactions: Annotated[
        Path,
        typer.Argument(
            help="CSV, plain or gzip: user_id,item_id[,interaction_score,timestamp].", exists=True, dir_okay=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the model's files.", file_okay=False)],
    as_json: Json = False,
) -> None:
    """Fit and evaluate a model without a service."""
    with exit_on_error():
        settings = Settings.from_environment()
        with TrainingProgress() as progress:
            metrics = train_folder(interactions, out, settings, progress)
    if as_json:
        print(json.dumps(metrics))
        return
    quality, popularity = metrics["quality"], metrics["popularity_baseline"]
    for name, value in quality.items():
        print(f"{name:<14} {value:.4f}   popularity {popularity[name]:.4f}")
    for line in (*metrics["data"]["warnings"], metrics["verdict"], f"The model lies in {out}."):
        print(line)


@app.command()
def recommend(
    model: Annotated[
        Path, typer.Argument(help="Directory that `recsys train --out` wrote.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="CSV to write: user_id,item_id,rank,score.", dir_okay=False)],
    users: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column user_id; without it, every user of the model.", exists=True, dir_okay=False
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Recommendations per user.")] = 20,
    as_json: Json = False,
) -> None:
    """Recommend to many users, or to all, from a model's files."""
    with exit_on_error():
        serving = artifact.read_folder(model)
        user_ids = list(serving.users) if users is None else read_users(users)
        answers = recommend_all(serving, user_ids, n=n)
        n_rows = write_recommendations(out, tracked(answers, "Recommending", total=len(user_ids)))
    known = sum(user_id in serving.users for user_id in user_ids)
    if as_json:
        print(json.dumps({"users": len(user_ids), "known_users": known, "rows": n_rows}))
    else:
        print(f"{n_rows:,} recommendations for {len(user_ids):,} users ({known:,} known to the model) lie in {out}.")


@app.command()
def doctor(data_dir: DataDir = Path("recsys-data"), port: int = 8000, as_json: Json = False) -> None:
    """Say what is missing or wrong here, and the fix."""
    from recsys_local.doctor import examine  # noqa: PLC0415  # it imports all that is installed

    findings = examine(data_dir, port)
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings]))
    else:
        for finding in findings:
            print(
                f"{'ok  ' if finding.ok else 'BAD '} {finding.what}" + ("" if finding.ok else f"\n     → {finding.fix}")
            )
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error of ours into lines on stderr and exit status 1."""
    try:
        yield
    except RecsysError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        for line in error.errors[:10]:
            print(f"  line {line.line}: {line.detail}", file=sys.stderr)
        if error.hint:
            print(f"→ {error.hint}", file=sys.stderr)
        raise typer.Exit(1) from error
