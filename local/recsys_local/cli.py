"""The commands of the program `recsys`, and their options."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from recsys.model import artifact
from recsys.model.batch_ranking import recommend_all
from recsys.settings import Settings
from recsys_local import admin, garbage
from recsys_local.backup import create_backup, restore_backup
from recsys_local.command_line import DEFAULT_DATA_DIR, DataDir, Json, exit_on_error
from recsys_local.key_commands import keys
from recsys_local.offline import (
    read_options,
    read_users,
    report_lines,
    train_folder,
    validate_file,
    write_recommendations,
)
from recsys_local.progress import TrainingProgress, tracked
from recsys_local.quality_tables import print_quality
from recsys_local.training_report import ReportPlan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train recommendation models on CSV files, and serve them.",
)


def main() -> None:
    """Run the command that the command line names, and exit with the status of the command.

    The process ends with `os._exit`. After a failed command, threads of the CSV reader may still run Python code. Such
    a thread would make the interpreter abort during a regular shutdown.
    """
    try:
        app()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)


UserColumn = Annotated[str | None, typer.Option(help="Column with the user id.")]
ItemColumn = Annotated[str | None, typer.Option(help="Column with the item id.")]
TimeColumn = Annotated[str | None, typer.Option(help="Column with the time. Pass - to train without times.")]
ScoreColumn = Annotated[str | None, typer.Option(help="Column with the score. Pass - to ignore scores.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Training jobs that run at the same time, each in its own process. Default: RECSYS_WORKERS, or 1."
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65535,
        help="Separate port for /metrics. By default, /metrics is served on --port, and only to clients on this "
        "machine.",
    ),
]
OtherOptions = Annotated[
    list[str] | None,
    typer.Option(
        help="Option for the file, such as delimiter=tab. Repeat --option for more. Names: delimiter, charset, "
        "decimal, time_format, min_score, exclude_items, event, events, mode. docs/reference/data.md describes them.",
        metavar="NAME=VALUE",
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        help="HTML file to write, with the data report, plots of the quality and a map of the items.", dir_okay=False
    ),
]
TitlesFile = Annotated[
    Path | None,
    typer.Option(
        help="Item catalogue that provides the titles for the report. Requires --report.", exists=True, dir_okay=False
    ),
]
app.add_typer(keys, name="keys")


def _print_version(requested: bool) -> None:  # noqa: FBT001  # Typer passes the option's value
    if requested:
        print(f"recsys {version('recsys')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version, and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Train recommendation models on CSV files, and serve them."""


@app.command()
def serve(  # noqa: PLR0913, PLR0917  # each argument is an option of the command
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on. 0 selects a free port.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    public_url: Annotated[
        str,
        typer.Option(
            help="URL at which clients reach the service. Upload forms contain it. Default: http://HOST:PORT."
        ),
    ] = "",
    workers: Workers = None,
    metrics_port: MetricsPort = None,
    metrics_host: Annotated[str, typer.Option(help="Address to listen on for --metrics-port.")] = "127.0.0.1",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_json: Annotated[bool, typer.Option(help="Log every request as a JSON line on standard error.")] = False,
    sample: Annotated[bool, typer.Option(help="Train on the bundled Online Retail sample at the first start.")] = False,
) -> None:
    """Run the service on this machine, with the HTTP API, the training workers and the inbox."""
    from recsys_local.metrics.service_metrics import MetricsAddress  # noqa: PLC0415  # imports FastAPI
    from recsys_local.service import run_service  # noqa: PLC0415  # imports FastAPI, which other commands do not need

    if public_url and not public_url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"Expected http://… or https://…. Received: {public_url}", param_hint="--public-url")
    if log_json:
        from recsys_local.request_log import log_as_json  # noqa: PLC0415  # only this option needs it

        log_as_json()
    with exit_on_error():
        run_service(
            host,
            port,
            data_dir,
            workers=workers,
            public_url=public_url,
            metrics_address=MetricsAddress(metrics_host, metrics_port),
            sample=sample,
        )


@app.command()
def train(  # noqa: PLR0913, PLR0917  # Typer needs a parameter for each option
    interactions: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet file, plain or compressed (gzip, zstd, zip).",
            exists=True,
            dir_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the files of the model.", file_okay=False)],
    user: UserColumn = None,
    item: ItemColumn = None,
    time: TimeColumn = None,
    score: ScoreColumn = None,
    option: OtherOptions = None,
    report: ReportFile = None,
    items: TitlesFile = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate a model without a service."""
    if items is not None and report is None:
        raise typer.BadParameter(
            "Expected --report as well, because only the report shows titles.", param_hint="--items"
        )
    with exit_on_error():
        settings = Settings.from_environment()
        options = read_options(user, item, time, score, option)
        plan = ReportPlan.of(report, items, settings)
        with TrainingProgress() as progress:
            metrics = train_folder(interactions, out, settings, progress, options)
        plan.write(metrics, out, source_name=interactions.name)
    if as_json:
        print(json.dumps(metrics))
        return
    print_quality(metrics)
    warnings = [finding["text"] for finding in metrics["data"]["warnings"]]
    written = [f"The model was written to {out}.", *([f"The report was written to {report}."] if report else [])]
    for line in (*warnings, metrics["verdict"], *written):
        print(line)


@app.command()
def validate(
    interactions: Annotated[
        Path, typer.Argument(help="CSV or Parquet file, plain or compressed.", exists=True, dir_okay=False)
    ],
    user: UserColumn = None,
    item: ItemColumn = None,
    time: TimeColumn = None,
    score: ScoreColumn = None,
    option: OtherOptions = None,
    as_json: Json = False,
) -> None:
    """Read a file exactly as training does, and print the data report. No model is trained."""
    with exit_on_error():
        options = read_options(user, item, time, score, option)
        report = validate_file(interactions, Settings.from_environment(), options)
    if as_json:
        print(json.dumps(report))
        return
    for line in report_lines(report):
        print(line)


@app.command()
def recommend(
    model: Annotated[
        Path, typer.Argument(help="Directory that `recsys train --out` wrote.", exists=True, file_okay=False)
    ],
    out: Annotated[
        Path, typer.Option(help="CSV to write, with the columns user_id,item_id,rank,score.", dir_okay=False)
    ],
    users: Annotated[
        Path | None,
        typer.Option(help="CSV with a column user_id. Default: every user in the model.", exists=True, dir_okay=False),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Recommendations per user.")] = 20,
    as_json: Json = False,
) -> None:
    """Write recommendations for many users to a CSV, without a service."""
    with exit_on_error():
        serving = artifact.read_folder(model)
        user_ids = list(serving.users) if users is None else read_users(users)
        results = recommend_all(serving, user_ids, n=n)
        n_rows = write_recommendations(out, tracked(results, "Recommending", total=len(user_ids)))
    n_known = sum(user_id in serving.users for user_id in user_ids)
    if as_json:
        print(json.dumps({"users": len(user_ids), "known_users": n_known, "rows": n_rows}))
    else:
        print(
            f"Wrote {n_rows:,} recommendations for {len(user_ids):,} users ({n_known:,} known to the model) to {out}."
        )


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="New directory for the backup.", file_okay=False)],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Json = False,
) -> None:
    """Back up the data directory. This also works while the service is running."""
    with exit_on_error():
        summary = create_backup(data_dir, target)
    if as_json:
        print(json.dumps({"path": str(target), "files": len(summary.files), "bytes": summary.size_bytes}))
    else:
        print(f"Backed up {len(summary.files):,} files ({summary.size_bytes / 1e6:,.1f} MB) to {target}.")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="Directory that `recsys backup` wrote.", exists=True, file_okay=False)],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Json = False,
) -> None:
    """Restore a backup into a new data directory."""
    with exit_on_error():
        summary = restore_backup(source, data_dir)
    if as_json:
        print(json.dumps({"path": str(data_dir), "files": len(summary.files), "bytes": summary.size_bytes}))
    else:
        print(f"Restored {len(summary.files):,} files ({summary.size_bytes / 1e6:,.1f} MB) to {data_dir}.")


@app.command()
def jobs(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    key_id: Annotated[str, typer.Option("--key", help="List only the jobs of the key with this id.")] = "",
    as_json: Json = False,
) -> None:
    """List the training jobs, newest first."""
    with exit_on_error():
        rows = admin.job_rows(data_dir, key_id)
    admin.print_table(rows, as_json=as_json)


@app.command("gc")
def collect(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the deletions without carrying them out.")] = False,
    as_json: Json = False,
) -> None:
    """Delete old model versions, files that are no longer needed, and expired records.

    The service makes the same deletions once an hour.
    """
    with exit_on_error():
        collection = garbage.collect_in(data_dir, Settings.from_environment(data_dir=data_dir), dry_run=dry_run)
    admin.print_table(garbage.rows_of(collection), as_json=as_json)
    if not as_json:
        print(garbage.summary_of(collection, dry_run=dry_run))


@app.command()
def doctor(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port that the service will use. The command checks that it is free.")
    ] = 8000,
    as_json: Json = False,
) -> None:
    """Check whether this machine can run the service, and suggest fixes."""
    from recsys_local.doctor import examine  # noqa: PLC0415  # only this command needs it

    findings = examine(data_dir, port)
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings]))
    else:
        for finding in findings:
            print(
                f"{'ok  ' if finding.ok else 'BAD '} {finding.what}" + ("" if finding.ok else f"\n     → {finding.fix}")
            )
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
