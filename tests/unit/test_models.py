"""Jobs, bundles and what handlers return: what can be made, and what the columns amount to."""

import copy
import enum
import pickle
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import attrs
import pytest

from jobqueue.adding import complete_job
from jobqueue.answers import Discard, Snooze
from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.counting import JobCounts
from jobqueue.errors import InvalidJobError, PayloadError
from jobqueue.models import Job, State, new_id
from jobqueue.pauses import PausedType
from jobqueue.payload import MAX_PAYLOAD_BYTES, RawJSON
from jobqueue.status import Status

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@attrs.frozen
class Email:
    to: str


def job(**columns):
    return attrs.evolve(Job.new("report", {"year": 2024}), **columns)


def test_a_new_job_has_what_it_was_given():
    """Values are kept as they were given; what was not given has its default."""
    id, start_at = uuid4(), NOW + HOUR
    made = Job.new("report", {"a": 1}, origin="web", id=id, priority=-5, start_at=start_at, max_retry_count=3)
    assert (made.id, made.type, made.payload, made.origin) == (id, "report", {"a": 1}, "web")
    assert (made.priority, made.start_at, made.max_retry_count) == (-5, start_at, 3)
    plain = Job.new("report", 1)
    assert (plain.origin, plain.priority, plain.start_at, plain.max_retry_count) == (None, 0, None, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Job.new("t", 1),
        lambda: Job(id=new_id(), type="t", payload_json="1"),
        lambda: attrs.evolve(Job.new("t", 1), origin="o"),
        lambda: pickle.loads(pickle.dumps(Job.new("t", 1))),
        lambda: copy.copy(Job.new("t", 1)),
        lambda: JobBundle.new("b", [JobDesc(1, type="t")]).jobs[0],
        lambda: complete_job(Job.new("t", 1), "o", MAX_PAYLOAD_BYTES),
    ],
    ids=["new", "by hand", "evolved", "unpickled", "copied", "member", "completed"],
)
def test_a_job_never_changes(make):
    """However a job was made, nothing of it can be changed, added or taken away; what is read of it is kept."""
    made = make()
    assert type(made) is Job
    for change in (
        lambda: setattr(made, "priority", 1),
        lambda: setattr(made, "payload", 2),
        lambda: setattr(made, "more", 1),
        lambda: delattr(made, "origin"),
    ):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            change()
    assert (made.payload, made.priority, repr(made)[:7]) == (1, 0, "Job(id=")
    assert made.payload is made.payload


def test_a_job_may_take_its_type_from_its_payload():
    """Without a type, the payload's class names it; a payload whose class says nothing needs one."""
    assert Job.new(None, Email("a@b.c")).type == f"{Email.__module__}.Email"
    with pytest.raises(InvalidJobError) as caught:
        Job.new(None, {"to": "a@b.c"})
    assert caught.value.field == "type"


@pytest.mark.parametrize("name", ["x", "x" * 100, "ü" * 100, "🎉" * 100, " ", "report:year"])
def test_types_and_origins_have_1_to_100_characters(name):
    """Characters are counted, not bytes."""
    made = Job.new(name, 1, origin=name)
    assert (made.type, made.origin) == (name, name)
    bundle = JobBundle.new(name, [JobDesc(1, type="member")], origin=name)
    assert (bundle.type, bundle.origin) == (name, name)


@pytest.mark.parametrize("name", ["", "x" * 101, "ü" * 101, "a\0", "a\ud800", 5, b"bytes"])
def test_other_types_and_origins_are_refused_by_field(name):
    """Empty and longer names, and those that no database can hold, are refused with the name of the field."""
    for field, make in {
        "type": lambda: Job.new(name, 1),
        "origin": lambda: Job.new("report", 1, origin=name),
    }.items():
        with pytest.raises(InvalidJobError) as caught:
            make()
        assert caught.value.field == field
        assert field in str(caught.value)
    descs = [JobDesc(1, type="member")]
    for field, make in {
        "type": lambda: JobBundle.new(name, descs),
        "origin": lambda: JobBundle.new("bundle", descs, origin=name),
    }.items():
        with pytest.raises(InvalidJobError) as caught:
            make()
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "least", "most"), [("priority", -(2**63), 2**63 - 1), ("max_retry_count", 0, 2**31 - 1)]
)
def test_numbers_have_bounds(field, least, most):
    """Numbers fit their columns: the ends are accepted, one beyond is refused."""
    for value in (least, most):
        assert getattr(Job.new("report", 1, **{field: value}), field) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidJobError, match=field) as caught:
            Job.new("report", 1, **{field: value})
        assert caught.value.field == field


class Urgency(enum.IntEnum):
    LOW = -5


def test_names_of_numbers_are_numbers():
    """A member of an IntEnum is the number that it stands for, and is looked at no longer than that."""
    assert type(Job.new("t", 1, priority=Urgency.LOW).priority) is int


@pytest.mark.parametrize("field", ["priority", "max_retry_count"])
@pytest.mark.parametrize("value", [True, False, 1.0, "1"])
def test_only_ints_are_numbers(field, value):
    """A bool is no number, nor is a float or text."""
    with pytest.raises(InvalidJobError, match=f"{field} must be an int") as caught:
        Job.new("report", 1, **{field: value})
    assert caught.value.field == field


def test_a_moment_needs_a_time_zone():
    """A naive datetime is refused, any time zone is accepted."""
    moment = datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert Job.new("report", 1, start_at=moment).start_at == moment
    for wrong in (datetime(2030, 1, 1), "2030-01-01", 5, timedelta(1)):  # noqa: DTZ001 - naive on purpose
        with pytest.raises(InvalidJobError) as caught:
            Job.new("report", 1, start_at=wrong)
        assert caught.value.field == "start_at"


@pytest.mark.parametrize("id", ["0192f3a1-0000-7000-8000-000000000001", 5])
def test_an_id_is_a_uuid(id):
    """Text that spells a UUID is not one."""
    with pytest.raises(InvalidJobError) as caught:
        Job.new("report", 1, id=id)
    assert caught.value.field == "id"


@pytest.mark.parametrize("payload", [None, RawJSON("null"), RawJSON(" null\n")])
def test_null_is_no_payload(payload):
    """None is refused, as is JSON null however it is spelled."""
    with pytest.raises(PayloadError, match="needs a payload"):
        Job.new("report", payload)


@pytest.mark.parametrize("payload", [0, "", [], {}, False, "null", [None]])
def test_empty_payloads_are_payloads(payload):
    """Whatever is not null is a payload, the string "null" included."""
    assert Job.new("report", payload).payload == payload


@pytest.mark.parametrize("character", ["x", "ü", "🎉"])
def test_the_size_of_a_payload_is_limited_in_bytes(character):
    """A payload of exactly 1 MiB as UTF-8 JSON is accepted, one byte more is not."""
    count, rest = divmod(MAX_PAYLOAD_BYTES - 2, len(character.encode()))
    text = character * count + "x" * rest
    assert len(Job.new("report", text).payload_json.encode()) == MAX_PAYLOAD_BYTES == 1024 * 1024
    with pytest.raises(PayloadError, match="1,048,577 bytes") as caught:
        Job.new("report", text + "x")
    assert caught.value.problems


def test_the_limit_of_a_payload_can_be_set():
    """A service may have another limit, for bundles, their members and completion jobs too."""
    desc = JobDesc("12345678", type="member")
    assert Job.new("report", "12345678", max_payload_bytes=10).payload == "12345678"
    assert JobBundle.new("bundle", [desc], on_stopped=desc, max_payload_bytes=10).num_jobs == 1
    for make in (
        lambda: Job.new("report", "12345678", max_payload_bytes=9),
        lambda: JobBundle.new("bundle", [desc], max_payload_bytes=9),
        lambda: JobBundle.new("bundle", [JobDesc(1, type="x")], on_stopped=desc, max_payload_bytes=9),
    ):
        with pytest.raises(PayloadError, match="10 bytes"):
            make()


@pytest.mark.parametrize(
    "payload",
    [float("nan"), "\0", "\ud800", {"a": [object()]}, 10**5000],
    ids=["nan", "nul", "surrogate", "object", "5,001 digits"],
)
def test_an_unstorable_payload_is_refused_when_the_job_is_made(payload):
    """What cannot be stored is refused by Job.new, as an invalid job whose field is the payload."""
    with pytest.raises(InvalidJobError) as caught:
        Job.new("report", payload)
    assert caught.value.field == "payload"


def test_a_payload_that_python_cannot_read_fails_when_it_is_asked_for():
    """A job with a 5,000-digit integer can be made and read; only its payload cannot."""
    made = Job.new("report", RawJSON("9" * 5000))
    with pytest.raises(PayloadError, match="cannot be read"):
        _ = made.payload


def test_stored_json_is_decoded_once():
    """Payload, result, error data and progress are the decoded JSON, the same object each time."""
    made = job(result_json="[1]", error_data_json='{"a":1}', progress_json="[0.5]")
    assert (made.payload, made.result, made.error_data, made.progress) == ({"year": 2024}, [1], {"a": 1}, [0.5])
    assert made.payload is made.payload
    empty = job()
    assert (empty.result, empty.error_data, empty.progress) == (None, None, None)


def test_jobs_and_bundles_are_equal_by_id():
    """The same job read twice is equal, whatever became of it meanwhile; so are bundles."""
    made = job()
    assert made == attrs.evolve(made, stopped_at=NOW)
    assert len({made, attrs.evolve(made, run_count=1)}) == 1
    assert made != attrs.evolve(made, id=uuid4())
    bundle = JobBundle.new("bundle", [JobDesc(1, type="member")])
    assert len({bundle, attrs.evolve(bundle, num_jobs_stopped=1)}) == 1
    assert made != bundle
    assert made != made.id


def test_ids_sort_in_the_order_in_which_they_were_made():
    """Ids are UUIDs of version 7 that increase within a process."""
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {id.version for id in ids} == {7}
    assert all(isinstance(id, UUID) for id in ids)


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({}, State.AVAILABLE),
        ({"start_at": NOW - HOUR}, State.AVAILABLE),
        ({"start_at": NOW + HOUR}, State.SCHEDULED),
        ({"start_at": NOW + HOUR, "run_count": 1}, State.RETRYING),
        ({"run_count": 1}, State.RETRYING),
        ({"started_at": NOW, "run_count": 1}, State.RUNNING),
        ({"started_at": NOW, "stopped_at": NOW}, State.SUCCEEDED),
        ({"started_at": NOW, "stopped_at": NOW, "error_msg": ""}, State.FAILED),
        ({"started_at": NOW, "stopped_at": NOW, "error_msg": "cancelled", "cancelled_at": NOW}, State.CANCELLED),
        ({"cancelled_at": NOW}, State.CANCELLED),
    ],
)
def test_the_state_is_the_first_that_holds(columns, state):
    """The state is derived from the columns, in one order of tests."""
    assert job(**columns).state is state


def test_predicates_follow_the_columns():
    """Started, stopped, failed and finished are what the columns say; an error with retries left is not the end."""
    waiting, running = job(), job(started_at=NOW)
    done = attrs.evolve(running, stopped_at=NOW)
    failed = attrs.evolve(done, error_msg="no", max_retry_count=2, current_retry_count=2)
    retried = attrs.evolve(failed, current_retry_count=1)
    jobs = (waiting, running, done, failed, retried)
    assert [j.started for j in jobs] == [False, True, True, True, True]
    assert [j.stopped for j in jobs] == [False, False, True, True, True]
    assert [j.started_and_not_stopped for j in jobs] == [False, True, False, False, False]
    assert [j.has_error for j in jobs] == [False, False, False, True, True]
    assert [j.is_finished for j in jobs] == [False, False, True, True, False]
    assert [j.succeeded for j in jobs] == [False, False, True, False, False]


def test_a_worker_is_alive_while_it_was_heard_of_lately():
    """A running job's worker is alive when its last beat is recent; nobody is without a beat, or when not running."""
    beat = datetime.now(UTC) - timedelta(seconds=30)
    running = job(started_at=NOW, worker_alive_at=beat)
    assert running.worker_alive(timedelta(minutes=1))
    assert not running.worker_alive(timedelta(seconds=29))
    assert not attrs.evolve(running, worker_alive_at=None).worker_alive(HOUR)
    assert not attrs.evolve(running, stopped_at=NOW).worker_alive(HOUR)
    assert not job(worker_alive_at=beat).worker_alive(HOUR)


def test_payloads_and_results_stay_out_of_reprs():
    """What is logged of a job does not show what it works on."""
    shown = repr(Job.new("report", "secret")) + repr(job(result_json='"secret"', error_data_json='"secret"'))
    assert "secret" not in shown


def test_members_take_what_they_do_not_say_from_their_bundle():
    """Origin and start time of a bundle are those of members that have none of their own."""
    later, soon = NOW + 2 * HOUR, NOW + HOUR
    bundle = JobBundle.new(
        "bundle",
        [JobDesc(1, type="a"), JobDesc(Email("x"), origin="own", start_at=soon, priority=7, max_retry_count=2)],
        origin="shared",
        start_at=later,
        delete_when_succeeded=True,
    )
    first, second = bundle.jobs
    assert (first.type, first.origin, first.start_at) == ("a", "shared", later)
    assert (second.type, second.origin, second.start_at) == (f"{Email.__module__}.Email", "own", soon)
    assert (second.priority, second.max_retry_count) == (7, 2)
    assert first.bundle_id == second.bundle_id == bundle.id
    assert (bundle.num_jobs, bundle.num_jobs_stopped, bundle.stopped) == (2, 0, False)
    assert bundle.delete_when_succeeded


def test_a_completion_job_is_no_member():
    """The job for the bundle's completion is not one of its members, and starts at once."""
    bundle = JobBundle.new(
        "bundle", [JobDesc(1, type="a")], origin="web", start_at=NOW + HOUR, on_stopped=JobDesc(2, type="end")
    )
    assert bundle.on_stopped is not None
    assert (bundle.on_stopped.type, bundle.on_stopped.origin) == ("end", "web")
    assert bundle.on_stopped.start_at is None
    assert bundle.num_jobs == 1


@pytest.mark.parametrize("descs", [[], [Email("x")], [Job.new("report", 1)], [None]])
def test_a_bundle_is_made_of_descriptions(descs):
    """A bundle needs at least one member, and each has to be a JobDesc."""
    with pytest.raises(InvalidJobError) as caught:
        JobBundle.new("bundle", descs)
    assert caught.value.field == "descs"


def test_a_bundle_tells_how_its_members_did():
    """A bundle has stopped with its last member, and has an error when any member has."""
    bundle = JobBundle.new("bundle", [JobDesc(1, type="a"), JobDesc(2, type="a")])
    assert not attrs.evolve(bundle, num_jobs_stopped=1).stopped
    assert attrs.evolve(bundle, num_jobs_stopped=2).stopped
    assert not bundle.has_error
    assert attrs.evolve(bundle, jobs=(bundle.jobs[0], job(error_msg="no"))).has_error


def test_a_status_sums_up():
    """Counts by type and state add up to counts by type, and by every state."""
    status = Status(
        num_jobs=6,
        num_job_bundles=1,
        by_type_and_state={"a": {State.RUNNING: 1, State.FAILED: 2}, "b": {State.FAILED: 3}},
    )
    assert status.by_type == {"a": 3, "b": 3}
    assert status.by_state == dict.fromkeys(State, 0) | {State.RUNNING: 1, State.FAILED: 5}
    assert not status.is_zero
    assert str(status) == "Status{NumJobs: 6, NumJobBundles: 1}"
    pause = PausedType(type="a", paused_at=datetime.now(UTC))
    assert str(attrs.evolve(status, paused=(pause,))) == "Status{NumJobs: 6, NumJobBundles: 1, Paused: 1}"
    assert Status().is_zero
    assert not Status(num_job_bundles=1).is_zero


def test_counts_show_their_numbers():
    """Each state is shown with its number, and whether that is an estimate."""
    counts = JobCounts(by_type_and_state={"a": {State.SUCCEEDED: 5}}, estimated_states=frozenset({State.SUCCEEDED}))
    assert "succeeded: about 5" in repr(counts)
    assert "failed: 0" in repr(counts)
    assert "{" not in repr(counts)


@pytest.mark.parametrize("delay", [-timedelta.resolution, 5, None])
def test_a_snooze_needs_a_delay(delay):
    """A snooze is for a timedelta of zero or more."""
    with pytest.raises(ValueError, match="zero or more"):
        Snooze(delay)
    assert Snooze(timedelta(0)).delay == timedelta(0)


def test_what_handlers_return_are_values():
    """Snooze and Discard are equal by what they say."""
    assert Snooze(HOUR) == Snooze(HOUR)
    assert Discard("late") == Discard("late")
    assert Discard("late") != Discard("early")
