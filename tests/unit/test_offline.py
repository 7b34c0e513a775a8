"""The command line: training and recommending from files, errors, and how `recsys serve` starts."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import stat
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from recsys.clock import utc_now
from recsys.errors import InvalidRequest
from recsys.keys.api_key import ApiKey
from recsys.model.batch_ranking import recommend_all
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.objects.layout import ITEM_UPLOADS
from recsys.registry.records import ModelVersion, Progress
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_local.adapters import SAMPLE_FILE, lock_data_dir
from recsys_local.cli import app
from recsys_local.command_line import exit_on_error
from recsys_local.console import SignInLinks
from recsys_local.offline import OutputNotWritable, check_writable, read_user_ids, write_recommendations
from recsys_local.progress import TrainingProgress
from recsys_local.sample import SampleRun
from tests.made_models import network_of, serving_model, write_model
from tests.markers import TENSORFLOW


def trains(test: object) -> object:
    """Mark a test as loading TensorFlow."""
    for mark in TENSORFLOW:
        test = mark(test)
    return test


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with a model. u0 bought i0 and prefers i2, i1, i3; the popular order is i0, i1, i2, i3."""
    folder = tmp_path / "model"
    logits = [[4.0, 1.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    write_model(folder, serving_model(network_of(logits), seen=[[0], [0, 1], [0, 1, 2]]))
    return folder


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.csv"
    path.write_text("user_id\nu0\nstranger\n", encoding="utf-8")
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


# -- progress without a terminal


def test_progress_prints_one_line_per_step_without_repeats() -> None:
    stream = io.StringIO()
    with TrainingProgress("job 1", stream) as show:
        show(Progress("reading"))
        show(Progress("fitting", 1, 20, 0.5, 0.25))
        show(Progress("fitting", 1, 20, 0.5, 0.25))
        show(Progress("refitting", 2, 3, 0.125))
        show(Progress("a later phase"))
    assert stream.getvalue().splitlines() == [
        "job 1: Reading the CSV",
        "job 1: Fitting NeuMF, epoch 1 of at most 20, loss 0.500, NDCG@20 0.2500",
        "job 1: Refitting on all interactions, epoch 2 of at most 3, loss 0.125",
        "job 1: a later phase",
    ]


# -- recommending


def test_recommendations_are_written_per_user_with_the_best_first(model: Path, users: Path, tmp_path: Path) -> None:
    result = run("recommend", model, "--users", users, "--n", "2", "--out", tmp_path / "recs.csv")
    assert result.exit_code == 0, result.stderr
    written = rows(tmp_path / "recs.csv")
    assert [row[:3] for row in written] == [
        ["user_id", "item_id", "rank"],
        ["u0", "i2", "1"],
        ["u0", "i1", "2"],
        ["stranger", "i0", "1"],
        ["stranger", "i1", "2"],
    ]
    assert [row[3] for row in written] == ["score", "0.880797", "0.731059", "1", "0.666667"]
    assert "Wrote 4 recommendations for 2 users (1 known to the model)" in result.stdout


def test_without_a_users_file_every_user_of_the_model_gets_recommendations(model: Path, tmp_path: Path) -> None:
    result = run("recommend", model, "--n", "1", "--out", tmp_path / "recs.csv")
    assert result.exit_code == 0, result.stderr
    assert [row[:2] for row in rows(tmp_path / "recs.csv")[1:]] == [["u0", "i2"], ["u1", "i2"], ["u2", "i3"]]
    assert "3 recommendations for 3 users (3 known to the model)" in result.stdout
    assert "Recommending: 3 of 3" in result.stderr


def test_json_option_prints_counts(model: Path, users: Path, tmp_path: Path) -> None:
    result = run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv", "--json")
    assert json.loads(result.stdout) == {"users": 2, "known_users": 1, "rows": 3 + 4}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("user_id\n", []),
        ("user_id\nu1\nu0\nu1\n", ["u1", "u0", "u1"]),
        ("name,USER_ID \nAnna,007\nBen,NA\n", ["007", "NA"]),
        ('user_id\n"a,b"\n"say ""hi"""\n', ["a,b", 'say "hi"']),
        ("name,user_id\nAnna,u1\nno id\nBen,\n\nCleo,u2\n", ["u1", "u2"]),
        ("user_id\r\nu1\r\n", ["u1"]),
    ],
)
def test_user_ids_are_read_unchanged_and_blank_ones_are_skipped(content: str, expected: list[str]) -> None:
    assert read_user_ids(io.StringIO(content, newline="")) == expected


def test_byte_order_mark_is_not_part_of_the_header(model: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_bytes("\ufeffuser_id\nu0\n".encode())
    assert run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv").exit_code == 0


@pytest.mark.parametrize(("content", "found"), [("", "nothing"), ("customer,name\nu0,Anna\n", "customer, name")])
def test_users_file_without_user_id_is_rejected_with_a_hint(content: str, found: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Found: {found}") as caught:
        read_user_ids(io.StringIO(content))
    assert caught.value.hint is not None


def test_users_file_without_user_id_fails_the_command_and_writes_nothing(
    model: Path, users: Path, tmp_path: Path
) -> None:
    users.write_text("customer\nu0\n")
    result = run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "Column user_id is missing" in result.stderr
    assert not (tmp_path / "recs.csv").exists()


def test_folder_without_a_model_fails_the_command_with_a_hint(users: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("recommend", tmp_path / "empty", "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "manifest.json is missing" in result.stderr
    assert "recsys train --out" in result.stderr


def test_damaged_model_fails_the_command(model: Path, users: Path, tmp_path: Path) -> None:
    serving = model / "serving.npz"
    serving.write_bytes(serving.read_bytes()[:-1])
    result = run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "serving.npz" in result.stderr


@pytest.mark.parametrize("n", ["0", "-1", "many"])
def test_n_must_be_a_positive_number(model: Path, users: Path, tmp_path: Path, n: str) -> None:
    assert run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv", "--n", n).exit_code == 2


def test_user_ids_with_special_characters_survive_the_csv(tmp_path: Path) -> None:
    model = serving_model(network_of([[1.0, 0.0]]), seen=[[0]])
    unusual_ids = ['comma, "quote"', "007", "日本", " "]
    n_rows = write_recommendations(tmp_path / "recs.csv", recommend_all(model, unusual_ids, n=1))
    assert n_rows == 4
    assert [row[0] for row in rows(tmp_path / "recs.csv")[1:]] == unusual_ids


# -- training


@trains
def test_recommend_reads_the_output_of_train(tmp_path: Path, users: Path) -> None:
    lines = [f"u{user},i{item}" for user in range(6) for item in range(5) if (user + item) % 3]
    source, folder, out = tmp_path / "orders.csv", tmp_path / "new" / "model", tmp_path / "recs.csv"
    source.write_text("user_id,item_id\n" + "\n".join(lines))
    trained = run("train", source, "--out", folder, "--json", "--report", tmp_path / "report.html")
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["data"]["interactions"] == len(lines)
    assert "Training on orders.csv" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("interactions.parquet", "manifest.json", "mappings.json", "metrics.json", "model.h5", "serving.npz")
    ]

    assert run("recommend", folder, "--users", users, "--n", "9", "--out", out).exit_code == 0
    bought = {line.split(",")[1] for line in lines if line.startswith("u0,")}
    recommended = {row[1] for row in rows(out)[1:] if row[0] == "u0"}
    assert recommended == {f"i{item}" for item in range(5)} - bought


@trains
def test_invalid_csv_fails_the_command_names_the_line_and_writes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text("user_id,item_id\nanna,tea\nben\nben,\n")
    result = run("train", source, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "2 of 3 lines are bad" in result.stderr
    assert "line 3: the line has 1 fields" in result.stderr
    assert "line 4, column item_id: the item_id is blank" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == [source]


@trains
def test_empty_file_fails_the_command_with_a_hint(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_bytes(b"")
    result = run("train", source, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "The file is empty." in result.stderr
    assert "→ Send a file with a header" in result.stderr


def test_titles_without_a_report_are_a_usage_error(users: Path, tmp_path: Path) -> None:
    assert run("train", users, "--out", tmp_path / "model", "--items", users).exit_code == 2


def test_unwritable_report_fails_the_command_before_the_training(users: Path, tmp_path: Path) -> None:
    result = run("train", users, "--out", tmp_path / "model", "--report", users / "report.html")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert not (tmp_path / "model").exists()


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert run("train", tmp_path / "none.csv", "--out", tmp_path / "model").exit_code == 2


# -- version, and errors of the operating system


def test_version_option_prints_the_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"recsys {metadata.version('recsys')}\n")


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """Return a path at which no file can be created, even by root: its parent is a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "out"


def test_recommending_to_an_unwritable_path_prints_a_message(model: Path, unwritable: Path) -> None:
    result = run("recommend", model, "--out", unwritable)
    assert result.exit_code == 1
    assert f"{unwritable} cannot be written: Not a directory." in result.stderr
    assert "→ Pass an --out" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_full_disk_deletes_the_incomplete_csv(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, path_open = tmp_path / "recs.csv", Path.open

    def open_full_disk(path: Path, *args: Any, **options: Any) -> Any:
        if path == out:
            out.touch()
            path = Path("/dev/full")
        return path_open(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_full_disk)
    result = run("recommend", model, "--out", out)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert not out.exists()


def test_unwritable_model_folder_is_reported_before_the_training(tmp_path: Path, unwritable: Path) -> None:
    with pytest.raises(OutputNotWritable):
        check_writable(unwritable)
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


@trains
def test_training_into_an_unwritable_folder_prints_a_message(tmp_path: Path, unwritable: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text("user_id,item_id\nanna,tea\nben,jam\n")
    result = run("train", source, "--out", unwritable)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_error_of_the_operating_system_prints_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), exit_on_error():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/x")
    assert "/mnt/x: Read-only file system." in capsys.readouterr().err


# -- starting a service


def test_new_data_directory_is_closed_to_other_users(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path / "new" / "data"):
        assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700


@pytest.mark.usefixtures("without_packages")
def test_existing_data_directory_that_others_can_read_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with lock_data_dir(tmp_path / "data"):
        assert "chmod 700" in caplog.text
    findings = json.loads(run("doctor", "--data-dir", tmp_path / "data", "--port", "0", "--json").stdout)
    assert f"Run: chmod 700 {tmp_path / 'data'}" in [finding["fix"] for finding in findings if not finding["ok"]]


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `recsys doctor` skip the packages, because importing TensorFlow takes seconds."""
    monkeypatch.setattr("recsys_local.doctor.REQUIRED_PACKAGES", {})


@pytest.mark.usefixtures("without_packages")
def test_data_directory_can_be_set_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "mine"))
    findings = json.loads(run("doctor", "--port", "0", "--json").stdout)
    assert f"{tmp_path / 'mine'} can be written" in [finding["what"] for finding in findings]


def test_aws_backend_is_rejected_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_BACKEND", "aws")
    result = run("serve", "--data-dir", tmp_path / "data", "--port", "0")
    assert result.exit_code == 1
    assert "Expected RECSYS_BACKEND=local" in result.stderr
    assert "Received: aws." in " ".join(result.stderr.split())
    assert "→ Unset RECSYS_BACKEND" in result.stderr
    assert not (tmp_path / "data").exists()


def test_public_url_without_a_scheme_is_a_usage_error(tmp_path: Path) -> None:
    assert run("serve", "--data-dir", tmp_path / "data", "--public-url", "shop.example").exit_code == 2


# -- the sample


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleRun:
    """Return a sample run that does not wait for its training, because no worker is running."""
    monkeypatch.setattr(SampleRun, "_wait", lambda self, job_id: self.registry.get_job(job_id))
    settings = Settings(data_dir=tmp_path)
    registry = SqliteRegistry(tmp_path / "registry.sqlite3")
    return SampleRun(FileObjectStore(tmp_path), registry, settings, "http://here")


def uploads(sample: SampleRun) -> list[str]:
    names = [info.name for info in sample.store.list("uploads/")]
    return [name for name in names if not name.startswith(ITEM_UPLOADS)]


def test_sample_is_submitted_once(sample: SampleRun) -> None:
    sample.run()
    sample.run()
    assert len(uploads(sample)) == 1
    assert len(list(sample.store.list(ITEM_UPLOADS))) == 1


def test_failed_sample_is_submitted_again(sample: SampleRun) -> None:
    sample.run()
    job_id = uploads(sample)[0].removeprefix("uploads/").removesuffix(".csv.gz")
    lease = sample.registry.claim_job(job_id, owner="worker", data_timestamp="1", lease_s=60)
    sample.registry.fail_job(lease, InvalidRequest("No memory.").to_problem(), None)
    sample.run()
    assert len(uploads(sample)) == 2


@pytest.mark.parametrize("damaged", ["", '{"job', "[]", "{}", '{"job_id": "unknown"}'])
def test_damaged_marker_is_ignored(sample: SampleRun, damaged: str) -> None:
    (sample.settings.data_dir / SAMPLE_FILE).write_text(damaged)
    sample.run()
    assert len(uploads(sample)) == 1


def test_sample_keeps_its_key_for_the_owner_only(sample: SampleRun, capsys: pytest.CaptureFixture[str]) -> None:
    sample.run()
    marker = sample.settings.data_dir / SAMPLE_FILE
    api_key = json.loads(marker.read_text())["api_key"]
    assert f"API key of the sample: {api_key}" in capsys.readouterr().out
    assert stat.S_IMODE(marker.stat().st_mode) == 0o600


@pytest.fixture
def trained_sample(sample: SampleRun, tmp_path: Path) -> SampleRun:
    """Return a sample run whose job was published with a small model."""
    sample.run()
    job_id = uploads(sample)[0].removeprefix("uploads/").removesuffix(".csv.gz")
    lease = sample.registry.claim_job(job_id, owner="worker", data_timestamp="1", lease_s=60)
    model = serving_model(network_of([[float(item) for item in range(20)]] * 2), seen=[list(range(9)), [1]])
    digest = write_model(tmp_path / "small", replace(model, version=lease.version))
    for path in (tmp_path / "small").iterdir():
        sample.store.create(layout.model_prefix(lease.job.key_id, lease.version) + path.name, path.read_bytes())
    version = ModelVersion(lease.job.key_id, lease.version, job_id, utc_now(), digest, {})
    sample.registry.publish_version(lease, version, {})
    return sample


def test_every_start_prints_recommendations_and_commands_with_the_key(
    trained_sample: SampleRun, capsys: pytest.CaptureFixture[str]
) -> None:
    api_key = json.loads((trained_sample.settings.data_dir / SAMPLE_FILE).read_text())["api_key"]
    for _ in range(2):
        capsys.readouterr()
        trained_sample.run()
        printed = capsys.readouterr().out
        assert "Customer u0" in printed
        assert f"-H 'X-API-Key: {api_key}'" in printed


def test_every_start_prints_a_link_that_signs_in_to_the_console(
    trained_sample: SampleRun, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = json.loads((trained_sample.settings.data_dir / SAMPLE_FILE).read_text())
    trained_sample.run()
    token = re.findall(r"http://here/console#sign-in=(\S+)", capsys.readouterr().out)[-1]

    signed_in = SignInLinks(trained_sample.settings.data_dir / "sign-in.json", "http://here").redeem(token)

    assert (signed_in.api_key, signed_in.job_id) == (marker["api_key"], marker["job_id"])


def test_key_that_was_rotated_is_not_printed(trained_sample: SampleRun, capsys: pytest.CaptureFixture[str]) -> None:
    api_key = ApiKey.parse(json.loads((trained_sample.settings.data_dir / SAMPLE_FILE).read_text())["api_key"])
    trained_sample.registry.rotate_key(api_key.key_id, ApiKey.mint(api_key.key_id).sha256(), overlap_s=0)
    capsys.readouterr()
    trained_sample.run()
    printed = capsys.readouterr().out
    assert str(api_key) not in printed
    assert "rotated or revoked" in printed
    assert "#sign-in=" not in printed


def test_deleted_sample_model_prints_a_message(trained_sample: SampleRun, capsys: pytest.CaptureFixture[str]) -> None:
    for info in list(trained_sample.store.list("models/")):
        trained_sample.store.delete(info.name)
    trained_sample.run()
    assert "The sample's model cannot be shown" in capsys.readouterr().out
