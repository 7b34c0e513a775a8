"""The command line: what `recsys train` and `recommend` make of files, and how `recsys serve` starts."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from recsys.errors import InvalidRequest
from recsys.model.batch_ranking import recommend_all
from recsys.objects.files import FileObjectStore
from recsys.registry.records import Progress
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_local.cli import app
from recsys_local.offline import read_user_ids, write_recommendations
from recsys_local.progress import TrainingProgress
from recsys_local.sample import MARKER, SampleRun
from tests.made_models import network_of, serving_model, write_model
from tests.markers import TENSORFLOW


def trains(test: object) -> object:
    """Mark a test that loads TensorFlow."""
    for mark in TENSORFLOW:
        test = mark(test)
    return test


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder. u0 had i0 and likes i2, i1, i3 in this order; popular are i0, i1, i2, i3."""
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


# -- progress, where no terminal is


def test_progress_is_a_line_per_step_and_none_for_what_was_said() -> None:
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
        "job 1: Fitting again on everything, epoch 2 of at most 3, loss 0.125",
        "job 1: a later phase",
    ]


# -- recommending


def test_recommendations_are_written_user_by_user_best_first(model: Path, users: Path, tmp_path: Path) -> None:
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
    assert "4 recommendations for 2 users (1 known to the model)" in result.stdout


def test_without_a_users_file_every_user_of_the_model_is_recommended_to(model: Path, tmp_path: Path) -> None:
    result = run("recommend", model, "--n", "1", "--out", tmp_path / "recs.csv")
    assert result.exit_code == 0, result.stderr
    assert [row[:2] for row in rows(tmp_path / "recs.csv")[1:]] == [["u0", "i2"], ["u1", "i2"], ["u2", "i3"]]
    assert "3 recommendations for 3 users (3 known to the model)" in result.stdout
    assert "Recommending: 3 of 3" in result.stderr


def test_a_script_gets_json(model: Path, users: Path, tmp_path: Path) -> None:
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
def test_user_ids_are_read_as_they_stand_and_blank_ones_passed_over(content: str, expected: list[str]) -> None:
    assert read_user_ids(io.StringIO(content, newline="")) == expected


def test_a_byte_order_mark_is_no_part_of_the_header(model: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_bytes("\ufeffuser_id\nu0\n".encode())
    assert run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv").exit_code == 0


@pytest.mark.parametrize(("content", "received"), [("", "nothing"), ("customer,name\nu0,Anna\n", "customer, name")])
def test_a_users_file_without_user_id_is_refused_with_the_mend(content: str, received: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Received: {received}") as caught:
        read_user_ids(io.StringIO(content))
    assert caught.value.hint is not None


def test_a_users_file_without_user_id_ends_the_command_and_writes_nothing(
    model: Path, users: Path, tmp_path: Path
) -> None:
    users.write_text("customer\nu0\n")
    result = run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "no column user_id" in result.stderr
    assert not (tmp_path / "recs.csv").exists()


def test_a_folder_that_holds_no_model_ends_the_command_with_the_mend(users: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("recommend", tmp_path / "empty", "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "manifest.json is missing" in result.stderr
    assert "recsys train --out" in result.stderr


def test_a_damaged_model_ends_the_command(model: Path, users: Path, tmp_path: Path) -> None:
    serving = model / "serving.npz"
    serving.write_bytes(serving.read_bytes()[:-1])
    result = run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv")
    assert result.exit_code == 1
    assert "serving.npz" in result.stderr


@pytest.mark.parametrize("n", ["0", "-1", "many"])
def test_n_must_be_a_positive_number(model: Path, users: Path, tmp_path: Path, n: str) -> None:
    assert run("recommend", model, "--users", users, "--out", tmp_path / "recs.csv", "--n", n).exit_code == 2


def test_ids_are_written_so_that_they_read_back(tmp_path: Path) -> None:
    model = serving_model(network_of([[1.0, 0.0]]), seen=[[0]])
    odd = ['comma, "quote"', "007", "日本", " "]
    n_rows = write_recommendations(tmp_path / "recs.csv", recommend_all(model, odd, n=1))
    assert n_rows == 4
    assert [row[0] for row in rows(tmp_path / "recs.csv")[1:]] == odd


# -- training


@trains
def test_a_trained_folder_recommends(tmp_path: Path, users: Path) -> None:
    lines = [f"u{user},i{item}" for user in range(6) for item in range(5) if (user + item) % 3]
    source, folder, out = tmp_path / "orders.csv", tmp_path / "new" / "model", tmp_path / "recs.csv"
    source.write_text("user_id,item_id\n" + "\n".join(lines))
    trained = run("train", source, "--out", folder, "--json")
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["data"]["interactions"] == len(lines)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("manifest.json", "mappings.json", "metrics.json", "model.h5", "serving.npz")
    ]

    assert run("recommend", folder, "--users", users, "--n", "9", "--out", out).exit_code == 0
    bought = {line.split(",")[1] for line in lines if line.startswith("u0,")}
    recommended = {row[1] for row in rows(out)[1:] if row[0] == "u0"}
    assert recommended == {f"i{item}" for item in range(5)} - bought


@trains
def test_a_bad_csv_ends_the_command_names_the_line_and_writes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text("user_id,item_id\nanna,tea\nben\n,milk\n")
    result = run("train", source, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "2 of 3 lines are bad" in result.stderr
    assert "line 3: the line has 1 fields" in result.stderr
    assert "line 4: the user_id is blank" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == [source]


@trains
def test_a_file_that_is_no_csv_ends_the_command_with_the_mend(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_bytes(b"")
    result = run("train", source, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "The file is empty." in result.stderr
    assert "→ Send a CSV in UTF-8" in result.stderr


def test_a_file_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    assert run("train", tmp_path / "none.csv", "--out", tmp_path / "model").exit_code == 2


# -- the start of a service


def test_the_data_directory_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "mine"))
    findings = json.loads(run("doctor", "--port", "0", "--json").stdout)
    assert f"{tmp_path / 'mine'} can be written" in [finding["what"] for finding in findings]


def test_a_service_for_aws_is_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_BACKEND", "aws")
    result = run("serve", "--data-dir", tmp_path / "data", "--port", "0")
    assert result.exit_code == 1
    assert "RECSYS_BACKEND=aws" in result.stderr
    assert "→ Unset RECSYS_BACKEND" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_public_url_must_be_one(tmp_path: Path) -> None:
    assert run("serve", "--data-dir", tmp_path / "data", "--public-url", "shop.example").exit_code == 2


# -- the sample


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleRun:
    """A sample run that waits for nobody, since no worker is there."""
    monkeypatch.setattr(SampleRun, "_wait", lambda self, job_id: self.registry.get_job(job_id))
    settings = Settings(data_dir=tmp_path)
    return SampleRun(FileObjectStore(tmp_path), SqliteRegistry(tmp_path / "registry.sqlite3"), settings, "http://here")


def uploads(sample: SampleRun) -> list[str]:
    return [info.name for info in sample.store.list("uploads/")]


def test_the_sample_is_submitted_once(sample: SampleRun) -> None:
    sample.run()
    sample.run()
    assert len(uploads(sample)) == 1


def test_a_sample_that_failed_is_submitted_again(sample: SampleRun) -> None:
    sample.run()
    job_id = uploads(sample)[0].removeprefix("uploads/").removesuffix(".csv.gz")
    lease = sample.registry.claim_job(job_id, owner="worker", data_timestamp="1", lease_s=60)
    sample.registry.fail_job(lease, InvalidRequest("No memory.").to_problem(), None)
    sample.run()
    assert len(uploads(sample)) == 2


@pytest.mark.parametrize("torn", ["", '{"job', "[]", "{}", '{"job_id": "unknown"}'])
def test_a_torn_marker_of_the_sample_counts_as_none(sample: SampleRun, torn: str) -> None:
    (sample.settings.data_dir / MARKER).write_text(torn)
    sample.run()
    assert len(uploads(sample)) == 1


def test_the_samples_key_is_shown_before_it_is_marked_as_started(
    sample: SampleRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SampleRun, "_mark", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        sample.run()
    assert "Its API key, shown only now: rk_" in capsys.readouterr().out
