"""Jobs are listed, replayed and deleted by a filter; numbers are had at once."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobqueue import InvalidJobError, Job, State
from jobqueue.outcomes import Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.retention import Retention
from jobqueue.settings import WorkerSettings
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_job

DAY = timedelta(days=1)
HOSTILE = ("100%_'; drop", r"back\slash", "50% off", "a_b", "{x}", "$1", "%s")


@pytest.fixture
def service(backend: Backend) -> QueueService:
    """The service over the store of `backend`, which closes it."""
    return QueueService(store=backend.store, notifier=backend.notifier, settings=WorkerSettings(), origin="tests")


def fail(backend: Backend, *messages: str, **values: Any) -> list[Job]:
    """Add a job for each of *messages*, and have it fail so; return them, the newest first."""
    jobs = []
    for message in messages:
        backend.clock.advance(timedelta(seconds=1))
        (job,) = backend.add(make_job(**values))
        backend.save(Outcome.failed(backend.claim_one(), RunError(message=message, type="E", traceback="")))
        jobs.append(job)
    return jobs[::-1]


def ids(jobs: list[Job]) -> list[Any]:
    return [job.id for job in jobs]


@pytest.mark.parametrize("text", HOSTILE)
def test_errors_are_searched_for_text_as_it_is(backend: Backend, service: QueueService, text: str) -> None:
    """No character of what is looked for has a meaning of its own; the case does not count."""
    found, *_ = fail(backend, "nothing", f"before {text.upper()} after")
    assert ids(service.list_jobs(error=text)) == [found.id]
    assert service.list_jobs(error=f"{text}!") == []


def test_errors_of_cancelled_jobs_are_errors(backend: Backend, service: QueueService) -> None:
    """Whatever has a message can be found by it, page by page."""
    (job,) = backend.add(make_job())
    backend.store.cancel_jobs([job.id])
    failed = fail(backend, "CANCEL this", "cancel that")
    first = service.list_jobs(error="cancel", limit=2)
    assert ids(first) == ids(failed)
    assert ids(service.list_jobs(error="cancel", limit=2, after=first[-1])) == [job.id]
    assert ids(service.list_jobs(error="cancel", state="failed", type="t")) == ids(failed)


def test_lists_by_age(backend: Backend, service: QueueService) -> None:
    """Age counts from when jobs were added; both ends belong to it."""
    (old,) = backend.add(make_job())
    backend.clock.advance(DAY)
    (young,) = backend.add(make_job())
    backend.clock.advance(DAY)
    assert ids(service.list_jobs(older_than=2 * DAY)) == [old.id]
    assert ids(service.list_jobs(older_than=DAY)) == [young.id, old.id]
    assert ids(service.list_jobs(newer_than=DAY)) == [young.id]
    assert service.list_jobs(newer_than=DAY / 2) == []
    assert ids(service.list_jobs(older_than=DAY, newer_than=DAY)) == [young.id]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"error": ""}, "error is empty"),
        ({"error": "a\0b"}, "cannot store"),
        ({"error": 5}, "must be a str"),
        ({"older_than": 5}, "must be a timedelta"),
        ({"newer_than": -DAY}, "from zero"),
        ({"limit": 0}, "limit must be"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_what_cannot_be_meant(service: QueueService, given: dict[str, Any], problem: str) -> None:
    """A filter that makes no sense is refused before anything is done."""
    calls = [service.replay_jobs, service.delete_jobs, *([] if "batch_size" in given else [service.list_jobs])]
    for call in calls:
        with pytest.raises(InvalidJobError, match=problem):
            call(**{"type": "t", **given})


@pytest.mark.parametrize("bundle_id", ["x", 5])
def test_a_bundle_that_is_no_id(service: QueueService, bundle_id: Any) -> None:
    """The error names what was given wrongly."""
    for call in (service.replay_jobs, service.delete_jobs, service.list_jobs):
        with pytest.raises(InvalidJobError, match="bundle_id must be") as caught:
            call(bundle_id=bundle_id)
        assert caught.value.field == "bundle_id"


@pytest.mark.parametrize("ids", ["mail", b"mail", 5, uuid4(), ["mail"], [5]])
def test_ids_that_are_none(service: QueueService, ids: Any) -> None:
    """What is not several ids is refused as such, and not letter by letter."""
    problem = "ids must be a uuid.UUID" if isinstance(ids, list) else "ids must be several"
    for call in (service.replay_jobs, service.delete_jobs, service.reset_jobs):
        with pytest.raises(InvalidJobError, match=problem) as caught:
            call(ids)
        assert caught.value.field == "ids"


def test_who_is_told_can_be(backend: Backend, service: QueueService) -> None:
    """What cannot be called is refused before anything is done."""
    (job,) = fail(backend, "broken")
    nobody: Any = 5
    calls: list[Any] = [
        lambda: service.replay_jobs(on_progress=nobody),
        lambda: service.delete_jobs(state="failed", on_progress=nobody),
        lambda: service.clean(Retention(failed=timedelta(0)), nobody),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="on_progress must be callable"):
            call()
    assert backend.read(job).state is State.FAILED


def test_replay_by_filter(backend: Backend, service: QueueService) -> None:
    """Of the failed jobs those are replayed that are meant, in pages, which are told of; all others stay."""
    wanted = fail(backend, *["timeout 1"] * 5)
    others = fail(backend, "TypeError", origin="elsewhere")
    (cancelled,) = backend.add(make_job())
    backend.store.cancel_jobs([cancelled.id])
    told: list[tuple[int, int | None]] = []
    assert service.replay_jobs(error="Timeout", batch_size=2, on_progress=lambda *now: told.append(now)) == 5
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert all(backend.read(job).state is State.AVAILABLE for job in wanted)
    assert backend.read(others[0]).state is State.FAILED
    assert backend.read(cancelled).state is State.CANCELLED
    assert service.replay_jobs() == 1


def test_replay_by_id(backend: Backend, service: QueueService) -> None:
    """Given ids, in whatever number of pages, are narrowed by whatever else is given; each counts once."""
    jobs = fail(backend, *["e"] * 3)
    more = [jobs[0].id, *ids(jobs), uuid4()]
    told: list[tuple[int, int | None]] = []
    assert service.replay_jobs(more, error="other") == 0
    assert service.replay_jobs(more, batch_size=2, on_progress=lambda *now: told.append(now)) == 3
    assert told == [(2, 4), (3, 4)]
    assert service.replay_jobs([]) == 0


def test_nothing_is_replayed_twice(backend: Backend, service: QueueService) -> None:
    """What fails again while others are still to be replayed is left for another call."""
    fail(backend, *["e"] * 4)

    def fail_again(done: int, _expected: int | None) -> None:
        assert done <= 4
        for job in backend.claim(10):
            backend.save(Outcome.failed(job, RunError(message="e", type="E", traceback="")))

    assert service.replay_jobs(batch_size=1, on_progress=fail_again) == 4
    assert service.count_jobs().by_state[State.FAILED] == 4


def test_a_limit(backend: Backend, service: QueueService) -> None:
    """No more than *limit* are acted on, the newest first."""
    jobs = fail(backend, *["e"] * 5)
    assert service.replay_jobs(limit=3, batch_size=2) == 3
    assert [backend.read(job).state is State.FAILED for job in jobs] == [False] * 3 + [True] * 2
    assert service.delete_jobs(state="failed", limit=1) == 1
    assert [backend.store.get_jobs([job.id]) == [] for job in jobs] == [False] * 3 + [True, False]


def test_delete_by_filter(backend: Backend, service: QueueService) -> None:
    """Jobs in any state can be meant; members leave their bundles, claims are lost."""
    bundle = backend.add_bundle(2)
    running = backend.claim_one()
    backend.add(*[make_job("other") for _ in range(3)])
    assert service.delete_jobs(type="t", state="running") == 1
    assert backend.worker_store.touch_jobs([running.fence]) == frozenset()
    assert backend.counts(bundle) == (1, 0, False)
    assert service.delete_jobs(type="other", origin="o", state=State.AVAILABLE, batch_size=2) == 3
    assert service.delete_jobs([bundle.jobs[0].id, bundle.jobs[1].id]) == 1
    assert backend.store.get_status().num_jobs == 0


def test_to_delete_all_is_said_in_so_many_words(backend: Backend, service: QueueService) -> None:
    """Without anything that says which, nothing is deleted, and the way to do it is named."""
    backend.add(make_job())
    with pytest.raises(InvalidJobError, match="delete_all_jobs_and_bundles"):
        service.delete_jobs(limit=5)
    assert service.delete_jobs([]) == 0
    assert backend.store.get_status().num_jobs == 1


def test_counts_of_few_jobs_are_exact(backend: Backend, service: QueueService) -> None:
    """Where there are few jobs, counts are those of the status."""
    fail(backend, "a", "b", type="u")
    backend.add(make_job(), make_job(), make_job("v", start_at=backend.clock.advance(DAY) + DAY))
    counts = service.count_jobs()
    assert counts.by_type_and_state == service.get_status().by_type_and_state
    assert (counts.num_jobs, counts.is_estimate, counts.by_state[State.FAILED]) == (5, False, 2)


def test_how_long_jobs_have_been_due(backend: Backend, service: QueueService) -> None:
    """Of each type it is the first that counts, whatever its priority; what is not due, or runs, does not."""
    start = backend.clock.advance(DAY)
    backend.add(make_job("a", priority=1, start_at=start + 2 * DAY), make_job("b", start_at=start + 9 * DAY))
    backend.add(make_job("a", priority=9, start_at=start + 3 * DAY), make_job("runs"), make_job("c", priority=-5))
    backend.claim_one("runs")
    backend.clock.advance(4 * DAY)
    assert service.oldest_due_age() == {"a": 2 * DAY, "c": 4 * DAY}
    backend.clock.advance(5 * DAY)
    assert service.oldest_due_age() == {"a": 7 * DAY, "b": timedelta(0), "c": 9 * DAY}
