"""Assertions about what is enqueued: what they accept, and what they say."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import attrs
import pytest

import jobqueue
from jobqueue import Job, Registry
from jobqueue.testing import Clock, assert_enqueued, assert_not_enqueued, drain, enqueued_jobs

START = datetime(2030, 1, 1, tzinfo=UTC)


@attrs.frozen
class Mail:
    __job_type__ = "mail"

    to: str
    at: datetime = START


@pytest.fixture
def service():
    """The current service, on a queue in memory, by a clock."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service, jobqueue.use_service(service), Clock(START):
        yield service


def message_of(error):
    return str(error.value)


def test_found_by_type(service):
    """By name, pattern, handler or payload class; the first is returned, or all when they are counted."""
    first, second = service.enqueue("mail", 1), service.enqueue("mail", 2)
    handler = Registry().handler("mail")(lambda: None)
    for meant in ("mail", "*", handler, Mail):
        assert assert_enqueued(meant) == first
        assert assert_enqueued(meant, count=2) == [first, second]
    assert assert_enqueued("other", count=0) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"payload": Mail("a")},
        {"payload": {"to": "a", "at": START.isoformat()}},
        {"payload": {"to": "a", "at": ANY}},
        {"includes": {"to": "a"}},
        {"includes": {"at": START}},
        {"where": lambda job: job.payload["to"] == "a"},
        {"priority": 3},
        {"start_at": START + timedelta(hours=1)},
    ],
)
def test_one_of_two(service, wanted):
    """Payloads are equal as JSON, or include fields; other values, and a predicate, choose as well."""
    meant = service.enqueue("mail", Mail("a"), priority=3, delay=timedelta(hours=1))
    if "at" not in wanted.get("includes", {}):
        service.enqueue("mail", Mail("b"))
    assert assert_enqueued("mail", count=1, **wanted) == [meant]
    with pytest.raises(AssertionError, match="1 job is enqueued of type 'mail' with"):
        assert_not_enqueued("mail", **wanted)


def test_part_of_a_payload_is_not_enough(service):
    """Equality is the rule: an additional field is a difference."""
    service.enqueue("mail", {"to": "a", "cc": "b"})
    with pytest.raises(AssertionError, match="payload has 'cc', too: 'b'"):
        assert_enqueued("mail", {"to": "a"})
    assert_not_enqueued("mail", {"to": "a"})


def test_near_misses_are_explained(service):
    """The message has each job of the type with what is different, and counts the others."""
    job = service.enqueue("mail", {"to": "b", "ids": [1, 2], "x": {"y": 1}})
    service.enqueue("other", 1)
    with pytest.raises(AssertionError) as raised:
        assert_enqueued("mail", {"to": "a", "ids": [1, 3], "x": {"z": 1}}, priority=1)
    assert message_of(raised).splitlines() == [
        "no job is enqueued of type 'mail' with payload {'to': 'a', 'ids': [1, 3], 'x': {'z': 1}}, priority 1",
        f"  'mail' {{'to': 'b', 'ids': [1, 2], 'x': {{'y': 1}}}}, available, job {job.id}",
        "      priority is 0, and not 1",
        "      payload['to'] is 'b', and not 'a'",
        "      payload['ids'][1] is 2, and not 3",
        "      payload['x'] has no 'z'",
        "      payload['x'] has 'y', too: 1",
        "of other types: 1 x 'other'",
    ]


def test_other_messages(service):
    """An empty queue, another type, a wrong count, and very much are told of, too."""
    with pytest.raises(AssertionError, match="nothing is enqueued at all"):
        assert_enqueued("mail")
    service.add_jobs([Job.new("mail", "x" * 1000) for _ in range(12)])
    with pytest.raises(AssertionError, match=r"none of this type\nof other types: 12 x 'mail'"):
        assert_enqueued("mailx")
    with pytest.raises(AssertionError, match="12 jobs are enqueued of type 'mail', and not 2") as raised:
        assert_enqueued("mail", count=2)
    assert "and 2 more" in message_of(raised)
    assert len(message_of(raised)) < 4000


def test_only_what_waits_is_enqueued(service, registry):
    """Not what runs or has stopped; but what waits for another run."""
    seen = []

    @registry.handler("t", max_retry_count=1)
    def work(payload: str) -> None:
        seen.append(enqueued_jobs("t"))
        if payload == "fails":
            raise ValueError

    for payload in ("fails", "works"):
        service.enqueue(work, payload)
    drain(registry=registry, raise_errors=False)
    assert [[job.payload for job in jobs] for jobs in seen] == [["works"], ["fails"]]
    assert [job.state for job in enqueued_jobs()] == ["retrying"]
