"""Unique keys before anything is stored: what is made of what is given, and what is refused."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from enum import Enum
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobqueue
from jobqueue import AddMiddleware, DuplicateJobError, InvalidJobError, Job, JobBundle, JobDesc, PayloadError, RawJSON
from jobqueue.events import JobsAdded
from jobqueue.queue_service import QueueService

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=36_500)


@attrs.frozen
class Email:
    to: str
    subject: str = "Hello"


class Color(str, Enum):  # noqa: UP042 - which is what is under test: a StrEnum is its value to str()
    RED = "red"


@pytest.fixture
def service() -> Iterator[Any]:
    """A service in memory."""
    with closing(jobqueue.connect("memory://")) as service:
        yield service


# --- what a key is made of


def key_of(payload: object, *names: str) -> str | None:
    return Job.new("t", payload, unique_by=names).unique_key


def test_a_key_of_fields_is_canonical() -> None:
    """The order of fields, and of names, does not matter, nor how the JSON is spaced."""
    expected = '{"subject":"Hello","to":"ä"}'
    assert key_of(Email("ä"), "to", "subject") == expected
    assert key_of(Email("ä"), "subject", "to", "to") == expected
    assert key_of({"to": "ä", "n": 1, "subject": "Hello"}, "to", "subject") == expected
    assert key_of(RawJSON('{ "to" : "\\u00e4", "subject" : "Hello" }'), "to", "subject") == expected
    assert key_of({"a": {"y": 1, "x": [1, None]}}, "a") == '{"a":{"x":[1,null],"y":1}}'
    assert key_of({"a": None}, "a") == '{"a":null}'


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(), min_size=1))
def test_keys_of_fields_are_equal_when_these_are(payload: dict[str, int]) -> None:
    """Two payloads have the same key when the named fields have the same values, and only then."""
    names = list(payload)
    turned = dict(reversed(payload.items()))
    other = {**payload, names[0]: payload[names[0]] + 1}
    assert key_of(payload, *names) == key_of(turned, *names) != key_of(other, *names)


def test_a_long_key_is_hashed() -> None:
    """Of more than 200 bytes the beginning is kept, in whole characters, and a hash: of another end, another key."""
    assert Job.new("t", 1, unique_key="k" * 200).unique_key == "k" * 200
    long = Job.new("t", 1, unique_key="k" * 201).unique_key
    assert long is not None
    assert long.startswith("k" * 120 + "...sha256:")
    keys = {Job.new("t", 1, unique_key=key).unique_key for key in ("ä" * 500_000, "ä" * 500_001, "x" + "ä" * 500_000)}
    assert len(keys) == 3
    assert all(len(key.encode()) <= 200 for key in keys if key)


def test_a_key_is_a_plain_text() -> None:
    """A member of an enum that is a str is its value."""
    key = Job.new("t", 1, unique_key=Color.RED).unique_key
    assert (key, type(key)) == ("red", str)


@pytest.mark.parametrize("key", ["", 1, b"k", "a\0b", "\ud800", ["k"]])
def test_hostile_keys(key: Any) -> None:
    """What PostgreSQL cannot keep, or is no text, or says nothing, is refused by name."""
    with pytest.raises(InvalidJobError) as caught:
        Job.new("t", 1, unique_key=key)
    assert caught.value.field == "unique_key"


@pytest.mark.parametrize("names", ["to", (), [1], 7, ("nothing",), ("to", "nothing"), ({"a": 1},)])
def test_fields_that_make_no_key(names: Any) -> None:
    """Names are several texts, and all of them are in the payload."""
    with pytest.raises(InvalidJobError, match="unique_by") as caught:
        Job.new("t", Email("a"), unique_by=names)
    assert caught.value.field == "unique_by"


@pytest.mark.parametrize("payload", [1, "to", ["to"]])
def test_a_payload_without_fields(payload: Any) -> None:
    """Only an object has fields."""
    with pytest.raises(InvalidJobError, match="no JSON object"):
        Job.new("t", payload, unique_by=["to"])


def test_a_payload_that_python_cannot_hold() -> None:
    """A payload that cannot be looked into gives no key."""
    with pytest.raises(PayloadError):
        Job.new("t", RawJSON(f'{{"n": {"9" * 5000}}}'), unique_by=["n"])


# --- how long it is held


def test_the_scope_is_until_the_job_has_stopped() -> None:
    """Unless it is said, a key is held while the job waits and runs; without a key there is no scope."""
    assert Job.new("t", 1, unique_key="k").unique_for == "waiting_and_running"
    assert Job.new("t", 1).unique_for is None


@pytest.mark.parametrize("value", ["forever", "", 60, timedelta(0), -HOUR, LONGEST + timedelta(microseconds=1)])
def test_what_is_no_scope(value: Any) -> None:
    """A scope is one of three names, or a time that passes within a century."""
    with pytest.raises(InvalidJobError) as caught:
        Job.new("t", 1, unique_key="k", unique_for=value)
    assert caught.value.field == "unique_for"


def test_what_does_not_go_together() -> None:
    """A scope without a key, or two keys, are a mistake."""
    with pytest.raises(InvalidJobError, match="give unique_key or unique_by"):
        Job.new("t", 1, unique_for="waiting")
    with pytest.raises(InvalidJobError, match="not both"):
        Job.new("t", Email("a"), unique_key="k", unique_by=["to"])


@pytest.mark.parametrize("seconds", [0.000001, 0.1, 86_400.000007, LONGEST.total_seconds()])
def test_a_period_is_as_long_as_it_was_said(service: QueueService, seconds: float) -> None:
    """What is read of a job says for how long, to the microsecond."""
    period = timedelta(seconds=seconds)
    job = service.get_job(service.enqueue("t", 1, unique_key="k", unique_for=period).id)
    assert job.created_at is not None
    assert (job.unique_for, job.unique_until) == (period, job.created_at + period)


# --- what the service makes of it


def test_enqueue_by_fields(service: QueueService) -> None:
    """A job for the same fields is not added again, whatever else is in the payload."""
    first = service.enqueue("mail", Email("a", "one"), unique_by=["to"])
    other = service.enqueue("mail", Email("a", "two"), unique_by=("to",))
    assert (other, other.is_duplicate, other.payload["subject"]) == (first, True, "one")
    assert not service.enqueue("mail", Email("b"), unique_by=["to"]).is_duplicate


def test_the_functions_of_the_package(service: QueueService) -> None:
    """Package functions, and handlers, take what the service takes."""

    @jobqueue.Registry().handler("of-a-handler")
    def handler(email: Email) -> None: ...

    with jobqueue.use_service(service):
        assert not jobqueue.enqueue("t", 1, unique_key="k", unique_for=HOUR).is_duplicate
        with pytest.raises(DuplicateJobError):
            jobqueue.enqueue("t", 1, unique_key="k", on_conflict="raise")
        assert jobqueue.add_job(Job.new("t", 2, unique_key="k"), on_conflict="replace_payload").payload == 2
        assert [job.is_duplicate for job in jobqueue.add_jobs([Job.new("t", 2, unique_key="k")])] == [True]
        assert not handler.enqueue(Email("a"), unique_by=["to"], unique_for="waiting").is_duplicate
        assert handler.enqueue(Email("a"), unique_by=["to"], on_conflict="ignore").is_duplicate


def test_unknown_ways_to_treat_conflicts(service: QueueService) -> None:
    """A way that is none is refused, with or without a key."""
    for add in (
        lambda: service.enqueue("t", 1, on_conflict="replace"),  # type: ignore[arg-type]
        lambda: service.add_jobs([Job.new("t", 1)], on_conflict=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidJobError, match="'ignore', 'raise', 'replace_payload'"):
            add()
    assert service.get_status().is_zero


@pytest.mark.parametrize("on_conflict", ["ignore", "replace_payload"])
def test_several_of_one_call(service: QueueService, on_conflict: Any) -> None:
    """Of several jobs with one key the first is added; what comes of them is what one after the other would lead to."""
    jobs = [Job.new("t", number, unique_key=key) for number, key in enumerate("aabab")]
    plain = Job.new("t", "plain")
    added = service.add_jobs([*jobs, plain], on_conflict=on_conflict)
    assert [job.id for job in added] == [jobs[0].id, jobs[0].id, jobs[2].id, jobs[0].id, jobs[2].id, plain.id]
    assert [job.is_duplicate for job in added] == [False, True, False, True, True, False]
    payloads = [service.get_job(jobs[place].id).payload for place in (0, 2)]
    assert payloads == ([3, 4] if on_conflict == "replace_payload" else [0, 2])
    assert [job.payload for job in added[:3]] == [payloads[0], payloads[0], payloads[1]]
    assert service.get_status().num_jobs == 3


def test_several_of_one_call_may_be_an_error(service: QueueService) -> None:
    """The error names the first one, which is not added either."""
    jobs = [Job.new("t", 1, unique_key="k") for _ in range(2)]
    with pytest.raises(DuplicateJobError) as caught:
        service.add_jobs(jobs, on_conflict="raise")
    assert caught.value.existing_id == jobs[0].id
    assert service.get_status().is_zero


def test_one_job_twice_in_a_call(service: QueueService) -> None:
    """A job that has a key, and is given twice, is added once."""
    job = Job.new("t", 1, unique_key="k")
    assert [found.is_duplicate for found in service.add_jobs([job, job])] == [False, True]
    assert service.get_status().num_jobs == 1


def test_middleware_sees_what_is_returned(service: QueueService) -> None:
    """A duplicate goes back through the middleware; what it does to keys is heeded."""
    seen: list[tuple[str | None, bool]] = []

    class Watching(AddMiddleware):
        def add_job(self, service: Any, job: Job, add: Any) -> Job:
            added: Job = add(attrs.evolve(job, unique_key=f"{job.unique_key}!", unique_for="waiting"))
            seen.append((added.unique_key, added.is_duplicate))
            return added

    service.use(Watching())
    job = service.enqueue("t", 1, unique_key="k")
    assert service.enqueue("t", 2, unique_key="k") == job
    assert seen == [("k!", False), ("k!", True)]
    assert [found.is_duplicate for found in service.add_jobs([Job.new("t", 3, unique_key=key) for key in "kl"])] == [
        True,
        False,
    ]


def test_observers_hear_of_what_was_added(service: QueueService) -> None:
    """Who observes what is added is not told of duplicates."""
    told: list[JobsAdded] = []
    service.add_observer(told.append, JobsAdded)
    jobs = [service.enqueue("t", 1, unique_key="k") for _ in range(2)]
    service.add_jobs([Job.new("t", 1, unique_key="k")])
    service.add_jobs([Job.new("t", 1, unique_key=key) for key in "kl"])
    assert [[job.unique_key for job in event.jobs] for event in told] == [["k"], ["l"]]
    assert told[0].jobs == (jobs[0],)


def test_a_member_of_a_bundle_has_no_key(service: QueueService) -> None:
    """A bundle is refused whose members have keys: it would wait for those that are left out."""
    bundle = JobBundle.new("b", [JobDesc(1, type="t"), JobDesc(2, type="t")])
    keyed = attrs.evolve(bundle.jobs[1], unique_key="k", unique_for="waiting")
    with pytest.raises(InvalidJobError, match="a bundle counts its members") as caught:
        service.add_bundle(attrs.evolve(bundle, jobs=(bundle.jobs[0], keyed)))
    assert caught.value.field == "unique_key"


@pytest.mark.parametrize("values", [{"unique_key": "k" * 201}, {"unique_key": ""}, {"unique_for": None}])
def test_jobs_of_other_makes(service: QueueService, values: Any) -> None:
    """A job that Job.new has not made is checked when it is added."""
    job = attrs.evolve(Job.new("t", 1, unique_key="k"), **values)
    with pytest.raises(InvalidJobError):
        service.add_job(job)


def test_services_that_keep_nothing() -> None:
    """Where nothing is kept, nothing is a duplicate; where jobs are run at once, neither."""
    with closing(jobqueue.DoNothingService()) as nothing:
        assert [nothing.enqueue("t", 1, unique_key="k").is_duplicate for _ in range(2)] == [False, False]
        assert [job.is_duplicate for job in nothing.add_jobs([Job.new("t", 1, unique_key="k")])] == [False]
    registry = jobqueue.Registry()
    runs: list[int] = []
    registry.register_func_for_job_type("t", runs.append)
    with jobqueue.testing.synchronous_jobs(registry), jobqueue.testing.ignore_jobs("ignored") as ignored:
        for number in range(2):
            assert not jobqueue.enqueue("t", number, unique_key="k").is_duplicate
            assert jobqueue.enqueue("ignored", number, unique_key="k").unique_key == "k"
    assert (runs, len(ignored)) == ([0, 1], 2)
