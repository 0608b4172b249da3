"""A payload has at most 1 MiB of JSON, or what the service says, in UTF-8: to the byte, by every way in."""

from contextlib import closing

import psycopg
import pytest

import jobqueue_pg
from jobqueue import Job, JobBundle, JobDesc, PayloadError, RawJSON
from jobqueue.payload import MAX_PAYLOAD_BYTES
from tests.fixtures.stores import fetch_all

STORED = """
select payload #>> '{}' from worker.job union all select on_stopped ->> 'payload' from worker.job_bundle
"""
LENGTHS = "select octet_length(payload::text) from worker.job order by 1"


def text_of(size):
    """Return a text whose JSON has *size* bytes, of letters that have two each, but for one."""
    return "ü" * ((size - 3) // 2) + "x" * (1 + (size - 3) % 2)


def raw_of(size):
    """Return JSON of *size* bytes, with a letter that is spelt in six bytes."""
    return RawJSON('"' + "x" * (size - 8) + '\\u00fc"')


WAYS_IN = {
    "enqueue": lambda service, payload: service.enqueue("t", payload),
    "add_job": lambda service, payload: service.add_job(Job.new("t", payload)),
    "add_jobs": lambda service, payload: service.add_jobs([Job.new("t", 1), Job.new("t", payload)]),
    "a member": lambda service, payload: service.add_bundle(JobBundle.new("b", [JobDesc(payload, type="t")])),
    "on_stopped": lambda service, payload: service.add_bundle(
        JobBundle.new("b", [JobDesc(1, type="t")], on_stopped=JobDesc(payload, type="t"))
    ),
}


@pytest.mark.parametrize("of", [text_of, raw_of])
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_the_limit_to_the_byte(service, db, way_in, of):
    """The longest payload is stored as it is; one byte more is refused, with both numbers, and nothing is added."""
    add, longest, too_long = WAYS_IN[way_in], of(MAX_PAYLOAD_BYTES), of(MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(PayloadError, match=r"1,048,577 bytes .* 1,048,576 are the limit") as caught:
        add(service, too_long)
    assert caught.value.problems == (("$", "has 1,048,577 bytes as JSON"),)
    assert fetch_all(db, "select count(*) from worker.job") == [0]
    add(service, longest)
    stored = fetch_all(
        db, "select payload #>> '{}' from worker.job union all select on_stopped ->> 'payload' from worker.job_bundle"
    )
    expected = longest if isinstance(longest, str) else Job.new("t", longest).payload
    assert stored.count(expected) == 1


def test_a_service_has_a_limit_of_its_own(queue, db):
    """A service takes what its setting allows, more or less than usual, on a caller's connection too."""
    for limit in (MAX_PAYLOAD_BYTES + 10, 10):
        with closing(jobqueue_pg.connect(queue, max_payload_bytes=limit)) as service:
            service.enqueue("t", text_of(limit))
            with psycopg.connect(queue) as caller:
                with pytest.raises(PayloadError, match=f"{limit:,} are the limit"):
                    service.enqueue("t", text_of(limit + 1), connection=caller)
                service.enqueue("t", 1, connection=caller)  # the caller's transaction goes on
    assert fetch_all(db, LENGTHS) == [1, 1, 10, MAX_PAYLOAD_BYTES + 10]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_allows_nothing(queue, limit):
    """A limit below one byte is a mistake, and is found at once."""
    with pytest.raises(ValueError, match="max_payload_bytes"):
        jobqueue_pg.connect(queue, max_payload_bytes=limit)
