"""``jobqueue jobs``, ``pause`` and ``resume``: what they show, what they do, and what they say of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobqueue import Service, State
from jobqueue.cli.commands import program
from jobqueue.models import new_id
from tests.fixtures.stores import Connection, insert_job

FAILED = {"started_at": "2026-01-01", "stopped_at": "2026-01-01", "run_count": 1}


def run(queue: str, *args: object, answer: str | None = None) -> Result:
    name, *rest = map(str, args)
    command = [name] if name in {"pause", "resume"} else ["jobs", name]
    return CliRunner().invoke(program, [*command, "--dsn", queue, *rest], input=answer)


@pytest.fixture
def jobs(db: Connection) -> dict[str, Any]:
    """Jobs by what is to be known of them."""
    return {
        "waiting": insert_job(db, type="mail", payload='{"to": "ann"}', origin="web"),
        "timeout": insert_job(db, type="mail", error_msg="a Timeout\nthen more", **FAILED),
        "broken": insert_job(db, type="report", error_msg="broken", **FAILED),
        "done": insert_job(db, type="report", **FAILED, result="7"),
    }


def listed(result: Result) -> set[str]:
    return {json.loads(line)["id"] for line in result.stdout.splitlines()}


def state_of(service: Service, id: Any) -> State:
    return service.get_job(id).state


# --- list and show


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {"waiting", "timeout", "broken", "done"}),
        (["--state", "failed"], {"timeout", "broken"}),
        (["--type", "mail"], {"waiting", "timeout"}),
        (["--origin", "web"], {"waiting"}),
        (["--error", "timeout"], {"timeout"}),
        (["--older-than", "1h"], set()),
        (["--newer-than", "1h", "--state", "succeeded"], {"done"}),
        (["--archived"], set()),
    ],
)
def test_list_takes_the_filters_of_list_jobs(
    queue: str, jobs: dict[str, Any], args: list[str], expected: set[str]
) -> None:
    """Each narrows down what is listed."""
    assert listed(run(queue, "list", "--json", *args)) == {str(jobs[name]) for name in expected}


def test_list_as_a_table(queue: str, jobs: dict[str, Any]) -> None:
    """Ids are whole, errors are their first line, and a list that was cut says so."""
    result = run(queue, "list", "--limit", 4)
    assert all(str(id) in result.stdout for id in jobs.values())
    assert "then more" not in result.stdout
    assert "there may be more" in result.stderr
    assert run(queue, "list").stderr == ""


def test_show(queue: str, db: Connection) -> None:
    """All is shown that there is to know: the payload, how each run has failed, and when what happened."""
    attempt = {
        "at": "2026-01-01T00:00:00Z",
        "run": 1,
        "error_msg": "no",
        "error_type": "KeyError",
        "traceback": "Trace",
    }
    id = insert_job(db, payload='{"to": ["ä"]}', error_msg="no [x]", attempt_errors=json.dumps([attempt]), **FAILED)
    text = run(queue, "show", id).stdout
    assert '"ä"' in text
    assert "no [x]" in text
    assert "KeyError: no\nTrace" in text
    told = json.loads(run(queue, "show", id, "--json").stdout)
    assert (told["payload"], told["attempt_errors"], told["state"]) == ({"to": ["ä"]}, [attempt], "failed")
    assert told["stopped_at"].startswith("2026-01-01T")


def test_show_what_python_cannot_hold(queue: str, db: Connection) -> None:
    """A number with more digits than Python reads is shown as it is."""
    id = insert_job(db, payload="1" * 5000)
    assert "1" * 60 in run(queue, "show", id).stdout
    assert json.loads(run(queue, "show", id, "--json").stdout)["payload"] == "1" * 5000


@pytest.mark.parametrize("command", ["show", "cancel", "retry", "delete"])
def test_an_id_that_is_not_there(queue: str, command: str) -> None:
    """It is told in a line, with exit code 1."""
    id = new_id()
    result = run(queue, command, id, *(["--yes"] if command == "delete" else []))
    assert result.exit_code == 1
    assert str(id) in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "args",
    [["show", "x"], ["retry"], ["delete"], ["cancel"], ["list", "--state", "x"], ["retry", "--reset", "--type", "t"],
     ["delete", "01a20548-c17c-7490-990f-4b01a1c02661", "--type", "t"], ["enqueue", "t"], ["pause", "a*b"]],
    ids=" ".join,
)  # fmt: skip
def test_usage(queue: str, jobs: dict[str, Any], args: list[str]) -> None:
    """What is missing, or makes no sense together, is wrong usage; nothing is done."""
    assert run(queue, *args).exit_code == 2


# --- retry, cancel, delete


def test_retry_by_ids(queue: str, service: Service, jobs: dict[str, Any]) -> None:
    """Those that have failed run again; of the others it is said why not, with exit code 1."""
    result = run(queue, "retry", jobs["broken"], jobs["done"])
    assert result.exit_code == 1
    assert result.stdout == f"{jobs['broken']} to run again\n"
    assert result.stderr == f"{jobs['done']} has not failed (--reset?)\n"
    assert state_of(service, jobs["broken"]) is State.AVAILABLE
    assert state_of(service, jobs["done"]) is State.SUCCEEDED
    assert run(queue, "retry", "--reset", jobs["done"]).exit_code == 0
    assert state_of(service, jobs["done"]) is State.AVAILABLE


def test_retry_by_filter(queue: str, service: Service, jobs: dict[str, Any]) -> None:
    """After a question, all that have failed and are meant run again; without a yes, nothing does."""
    result = run(queue, "retry", "--type", "mail", answer="n\n")
    assert result.exit_code == 1
    assert str(jobs["timeout"]) in result.stderr
    assert str(jobs["waiting"]) not in result.stderr
    assert state_of(service, jobs["timeout"]) is State.FAILED
    assert run(queue, "retry", "--error", "TIMEOUT", "--yes").stdout == "1 jobs are to run again\n"
    assert state_of(service, jobs["timeout"]) is State.AVAILABLE
    assert state_of(service, jobs["broken"]) is State.FAILED


def test_cancel(queue: str, service: Service, jobs: dict[str, Any]) -> None:
    """What has not stopped is stopped for good; what has, is told."""
    result = run(queue, "cancel", jobs["waiting"], jobs["done"])
    assert (result.exit_code, result.stdout) == (1, f"{jobs['waiting']} cancelled\n")
    assert "has stopped already" in result.stderr
    assert state_of(service, jobs["waiting"]) is State.CANCELLED


def test_delete(queue: str, service: Service, jobs: dict[str, Any]) -> None:
    """It asks first; by ids and by filters."""
    assert run(queue, "delete", jobs["done"], answer="n\n").exit_code == 1
    assert len(service.list_jobs()) == 4
    assert run(queue, "delete", jobs["done"], answer="y\n").exit_code == 0
    assert run(queue, "delete", "--state", "failed", "--yes").stdout == "deleted 2 jobs\n"
    assert [job.id for job in service.list_jobs()] == [jobs["waiting"]]
    result = run(queue, "delete", "--type", "nothing")
    assert (result.exit_code, result.stdout) == (0, "there are no such jobs\n")


# --- enqueue, pause, resume


def test_enqueue(queue: str, service: Service, tmp_path: Path) -> None:
    """A payload is the argument, what is in a file, or what is piped in; the id is printed."""
    (tmp_path / "payload.json").write_text('{"to": "ä"}')
    made = [
        run(queue, "enqueue", "mail", '{"to": "ann"}', "--delay", "10m", "--priority", "5", "--max-retries", "2"),
        run(queue, "enqueue", "mail", f"@{tmp_path}/payload.json"),
        run(queue, "enqueue", "mail", "-", answer="[1]"),
    ]
    assert [result.exit_code for result in made] == [0, 0, 0]
    first, second, third = (service.get_job(_id_of(result)) for result in made)
    assert (first.payload, first.state, first.priority, first.max_retry_count) == ({"to": "ann"}, State.SCHEDULED, 5, 2)
    assert (second.payload, third.payload, third.state) == ({"to": "ä"}, [1], State.AVAILABLE)


def _id_of(result: Result) -> Any:
    from uuid import UUID

    return UUID(result.stdout.strip())


def test_enqueue_with_a_unique_key(queue: str, service: Service) -> None:
    """Where another job holds the key, its id is printed, and a line says that nothing was added."""
    first = run(queue, "enqueue", "t", "1", "--unique-key", "k")
    second = run(queue, "enqueue", "t", "2", "--unique-key", "k")
    assert (second.exit_code, second.stdout) == (0, first.stdout)
    assert "nothing was added" in second.stderr
    assert run(queue, "enqueue", "t", "3", "--unique-key", "k", "--on-conflict", "raise").exit_code == 1
    assert len(service.list_jobs()) == 1


@pytest.mark.parametrize("payload", ["{", "null", "@/there/is/no/such/file", "NaN"])
def test_a_payload_that_is_none(queue: str, service: Service, payload: str) -> None:
    """It is told in a line, with exit code 1, and nothing is added."""
    result = run(queue, "enqueue", "t", payload)
    assert (result.exit_code, result.stderr.count("\n"), service.list_jobs()) == (1, 1, [])


def test_pause_and_resume(queue: str, service: Service) -> None:
    """A type is paused for a while or for good, and resumed once."""
    assert run(queue, "pause", "mail:*", "--for", "30m", "--reason", "away").stdout.startswith(
        "mail:* is paused until 2"
    )
    [paused] = service.paused_types()
    assert (paused.type, paused.reason) == ("mail:*", "away")
    assert run(queue, "pause", "mail:*").stdout == "mail:* is paused until it is resumed\n"
    assert "paused are mail:*" in run(queue, "resume", "mail").stderr
    assert run(queue, "resume", "mail:*").exit_code == 0
    assert run(queue, "resume", "mail:*").exit_code == 1
