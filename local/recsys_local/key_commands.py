"""The commands of `recsys keys`, which manage API keys."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from recsys.keys.api_key import ApiKey
from recsys_local import admin
from recsys_local.command_line import DEFAULT_DATA_DIR, DataDir, Json, exit_on_error

keys = typer.Typer(no_args_is_help=True, help="List, create, rotate, revoke and audit API keys on this machine.")
KeyId = Annotated[str, typer.Argument(help="Key id, as `recsys keys list` prints it.")]


@keys.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """List the API keys, oldest first, without their secrets."""
    with exit_on_error():
        rows = admin.key_rows(data_dir)
    admin.print_table(rows, as_json=as_json)


@keys.command("create")
def create_key(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Create an API key that does not expire, and print it. The key cannot be printed again."""
    with exit_on_error():
        api_key = admin.create_key(data_dir)
    _print_key(api_key, as_json=as_json)


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    overlap_s: Annotated[
        float, typer.Option(min=0, max=admin.MAX_OVERLAP_S, help="Seconds for which the previous secret stays valid.")
    ] = admin.DEFAULT_OVERLAP_S,
    as_json: Json = False,
) -> None:
    """Replace the secret of an API key, and print the new key. The new key cannot be printed again."""
    with exit_on_error():
        api_key = admin.rotate_key(data_dir, key_id, overlap_s=overlap_s)
    _print_key(api_key, as_json=as_json)


@keys.command("revoke")
def revoke_key(key_id: KeyId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Revoke an API key permanently. The service rejects the key within a few seconds."""
    with exit_on_error():
        admin.revoke_key(data_dir, key_id)
    print(f"Key {key_id} is revoked.")


@keys.command("audit")
def audit_key(key_id: KeyId, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """List the events in the audit log of an API key, newest first. This also works for a revoked key."""
    with exit_on_error():
        rows = admin.event_rows(data_dir, key_id)
    admin.print_table(rows, as_json=as_json)


def _print_key(api_key: ApiKey, *, as_json: bool) -> None:
    print(json.dumps({"key_id": api_key.key_id, "api_key": str(api_key)}) if as_json else str(api_key))
