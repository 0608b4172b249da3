"""The queue of the model: what each call of the ports does to all jobs and bundles, what it returns, and what it tells.

By docs/backends.md. Nothing here looks at how a backend does it: counters are counted, never moved, and what follows
from a change (events, completions) is derived from how everything was before it and is after it.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from jobqueue import Job, JobBundle, State, Status
from jobqueue.events import ClaimLost, Event, JobAvailable, JobBundleStopped, JobStopped
from jobqueue.job_filter import JobFilter
from jobqueue.models import Fence
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, Rescue
from tests.conformance.machine.keys import holder_of, takers
from tests.conformance.machine.rows import ModelBundle, ModelJob


class Model:
    """All jobs and bundles.

    *clock* is the queue's; *teller* is the one that says which jobs are due when they are told to be available.
    """

    def __init__(self, clock: Callable[[], datetime], teller: Callable[[], datetime]) -> None:
        self._clock = clock
        self._teller = teller
        self.jobs: dict[UUID, ModelJob] = {}
        self.bundles: dict[UUID, ModelBundle] = {}
        self.nameless: list[ModelJob] = []
        """Jobs that completions have added, and whose ids are not known yet."""
        self.told = Counter[Event]()
        """What was told since somebody emptied it."""

    @property
    def now(self) -> datetime:
        return self._clock()

    # --- adding

    def add(self, jobs: Sequence[Job], bundle: JobBundle | None = None, delay: timedelta | None = None) -> None:
        """Add jobs whose ids are new."""
        if bundle is not None:
            self.bundles[bundle.id] = ModelBundle.added(bundle, self.now)
        added = [ModelJob.added(job, self.now, delay) for job in jobs]
        self.jobs |= {job.id: job for job in added if job.id is not None}
        for job_type in {job.type for job in added}:
            self._tell_available([job for job in added if job.type == job_type])

    def who_holds_key_of(self, job: Job) -> ModelJob | None:
        """Return who holds the key that *job* wants; if his time is over, he does not any more."""
        holder = holder_of(self.jobs.values(), job.type, job.unique_key)
        if holder is None or not holder.is_over(self.now):
            return holder
        holder.free_key()
        holder.updated_at = self.now
        return None

    def replace_payload(self, holder: ModelJob, job: Job) -> None:
        if holder.waits:
            holder.payload, holder.updated_at = job.payload, self.now

    def name(self, job_id: UUID, bundle_id: UUID | None) -> None:
        """Learn the id of the job that the completion of a bundle has added."""
        (job,) = [job for job in self.nameless if job.completes_bundle_id == bundle_id]
        self.nameless.remove(job)
        job.id = job_id
        self.jobs[job_id] = job
        self._tell_available([job])

    def _tell_available(self, alike: Sequence[ModelJob]) -> None:
        due = [job for job in alike if job.is_due(self._teller())]
        if due:
            first = min(due, key=lambda job: str(job.id))
            self._tell(first, JobAvailable, count=len(due))

    # --- claiming

    def claim(self, claimed: Sequence[Job], types: Sequence[str], limit: int, claimant: Claimant) -> None:
        """Hold what a backend has claimed against what it may claim, and take it over."""
        choices = self.choices(types, limit)
        assert [job.id for job in claimed] in choices, f"claimed {claimed}, and not one of {choices}"
        for job in claimed:
            assert job.claim_id is not None
            self.jobs[job.id].claim(job.claim_id, claimant, self.now)

    def choices(self, types: Sequence[str], limit: int) -> list[list[UUID | None]]:
        """Return what may be claimed: the best in order; or, of the last priority, type by type, the earliest first."""
        due = self._waiting(types, lambda job: job.is_due(self.now))

        def place_of_type(job: ModelJob) -> tuple[object, ...]:
            return min(other.place for other in due if (other.type, other.priority) == (job.type, job.priority))

        in_order = sorted(due, key=lambda job: job.place)
        by_type = sorted(due, key=lambda job: (-job.priority, place_of_type(job), job.place))
        best = [sorted(order[: max(0, limit)], key=lambda job: job.place) for order in (in_order, by_type)]
        return [[job.id for job in jobs] for jobs in best]

    def next_due_in(self, types: Sequence[str]) -> timedelta | None:
        """Return how long until the next job is due that is not."""
        later = self._waiting(types, lambda job: not job.is_due(self.now))
        return min((job.due_at - self.now for job in later), default=None)

    def _waiting(self, types: Sequence[str], is_wanted: Callable[[ModelJob], bool]) -> list[ModelJob]:
        exact = {name for name in types if not name.endswith("*")}
        prefixes = tuple(name[:-1] for name in types if name.endswith("*"))
        return [
            job
            for job in self.jobs.values()
            if job.waits and (job.type in exact or job.type.startswith(prefixes)) and is_wanted(job)
        ]

    # --- working

    def save(self, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        saved = set[UUID]()
        with self._changing():
            for outcome in outcomes:
                for job in self._owned([outcome.fence]):
                    if outcome.kind is OutcomeKind.RETRY:
                        self._tell(job, JobStopped, will_retry=True)
                    error_data = None if outcome.error is None else _value(outcome.error.data_json)
                    job.end(outcome, _value(outcome.result_json), error_data, self.now)
                    saved.add(outcome.fence.job_id)
        return frozenset(saved)

    def touch(self, fences: Sequence[Fence]) -> frozenset[UUID]:
        owned = self._owned(fences)
        for job in owned:
            job.beat(self.now)
        return _ids(owned)

    def say(self, fence: Fence, progress: object) -> bool:
        owned = self._owned([fence])
        for job in owned:
            job.say(progress, self.now)
        return bool(owned)

    def reap(self, dead_for: timedelta, max_rescues: int) -> list[Rescue]:
        rescues: list[Rescue] = []
        with self._changing():
            for job_id, job in self.jobs.items():
                if not job.is_silent(dead_for, self.now):
                    continue
                claimed_by, failed = job.claimed_by, job.rescue_count >= max_rescues
                (job.give_up if failed else job.rescue)(self.now)
                rescues.append(
                    Rescue(
                        job_id=job_id,
                        job_type=job.type,
                        claimed_by=claimed_by,
                        rescue_count=job.rescue_count,
                        failed=failed,
                    )
                )
        return rescues

    def _owned(self, fences: Iterable[Fence]) -> list[ModelJob]:
        return [job for job in self.jobs.values() if any(job.is_owned_by(fence) for fence in fences)]

    # --- managing

    def reset(self, ids: Iterable[UUID]) -> frozenset[UUID]:
        return self._reset(ids, lambda _: True)

    def replay(self, ids: Iterable[UUID]) -> frozenset[UUID]:
        return self._reset(ids, lambda job: job.has_failed)

    def _reset(self, ids: Iterable[UUID], is_wanted: Callable[[ModelJob], bool]) -> frozenset[UUID]:
        with self._changing():
            found = [job for job in self._find(ids) if is_wanted(job)]
            taking_back = takers(found, self.jobs.values(), self.now)
            for job in found:
                self._tell_lost(job)
                if job.id in taking_back:
                    job.take_key_back()
                if job.waits and job.run_count > 0 and not job.is_due(self.now):
                    self._tell(job, JobAvailable)
                job.reset(self.now)
        return _ids(found)

    def cancel(self, ids: Iterable[UUID]) -> frozenset[UUID]:
        with self._changing():
            found = [job for job in self._find(ids) if not job.is_stopped]
            for job in found:
                self._tell_lost(job)
                job.cancel(self.now)
        return _ids(found)

    def reschedule(self, job_id: UUID, start_at: datetime | None) -> bool:
        found = [job for job in self._find([job_id]) if job.waits]
        for job in found:
            job.reschedule(start_at, self.now)
            self._tell(job, JobAvailable)
        return bool(found)

    # --- deleting

    def delete(self, is_wanted: Callable[[ModelJob], bool]) -> frozenset[UUID]:
        with self._changing():
            found = [job for job in self.jobs.values() if is_wanted(job)]
            self._remove(found)
        return _ids(found)

    def delete_bundles(self, is_wanted: Callable[[ModelBundle], bool]) -> frozenset[UUID]:
        gone = frozenset(bundle.id for bundle in self.bundles.values() if is_wanted(bundle))
        self.bundles = {id_: bundle for id_, bundle in self.bundles.items() if id_ not in gone}
        self._remove([job for job in self.jobs.values() if job.bundle_id in gone])
        return gone

    def delete_all(self) -> None:
        self.bundles.clear()
        self._remove(list(self.jobs.values()))

    def delete_succeeded_bundles(self, kept_for: timedelta) -> frozenset[UUID]:
        def may_go(bundle: ModelBundle) -> bool:
            if not bundle.delete_when_succeeded or bundle.stopped_at is None or self.now - bundle.stopped_at < kept_for:
                return False
            concerned = [job for job in self.jobs.values() if bundle.id in {job.bundle_id, job.completes_bundle_id}]
            return all(job.has_succeeded for job in concerned)

        return self.delete_bundles(may_go)

    def _remove(self, jobs: Iterable[ModelJob]) -> None:
        for job in jobs:
            self._tell_lost(job)
            assert job.id is not None
            del self.jobs[job.id]

    # --- looking

    def newest_first(self, which: JobFilter) -> list[ModelJob]:
        wanted = [
            job
            for job in self.jobs.values()
            if which.state in {None, job.state(self.now)} and which.type in {None, job.type}
        ]
        return sorted(wanted, key=lambda job: (job.created_at, job.id), reverse=True)

    def to_do(self) -> list[ModelJob]:
        to_do = [job for job in self.jobs.values() if not job.is_stopped]
        return sorted(to_do, key=lambda job: (job.start_at is not None, job.start_at, job.created_at, job.id))

    def started_before(self, moment: datetime) -> list[ModelJob]:
        started = [job for job in self.jobs.values() if job.is_running_since_before(moment)]
        return sorted(started, key=lambda job: (job.started_at, job.id))

    def with_errors(self) -> list[ModelJob]:
        broken = [job for job in self.jobs.values() if job.error_msg is not None]
        return sorted(broken, key=lambda job: (job.stopped_at, job.id))

    def members_of(self, bundle_id: UUID) -> list[ModelJob]:
        members = [job for job in self.jobs.values() if job.bundle_id == bundle_id]
        return sorted(members, key=lambda job: (job.created_at, job.id))

    def status(self) -> Status:
        counts: dict[str, dict[State, int]] = {}
        for job in self.jobs.values():
            of_type = counts.setdefault(job.type, {})
            of_type[job.state(self.now)] = of_type.get(job.state(self.now), 0) + 1
        return Status(num_jobs=len(self.jobs), num_job_bundles=len(self.bundles), by_type_and_state=counts)

    def _find(self, ids: Iterable[UUID]) -> list[ModelJob]:
        return [self.jobs[id_] for id_ in set(ids) if id_ in self.jobs]

    # --- what follows from a change

    @contextmanager
    def _changing(self) -> Generator[None]:
        """Tell what follows from what is done in the block, count all members anew, and complete bundles."""
        before = {id_: attrs.evolve(job) for id_, job in self.jobs.items()}
        yield
        for id_, job in self.jobs.items():
            if job.is_stopped and not before[id_].is_stopped:
                self._tell(job, JobStopped, will_retry=False)
            if job.started_at is None and before[id_].started_at is not None and job.is_due(self._teller()):
                self._tell(job, JobAvailable)
        for bundle in self.bundles.values():
            members = self.members_of(bundle.id)
            if bundle.recount(len(members), sum(job.is_stopped for job in members), self.now):
                self.told[JobBundleStopped(id=bundle.id, type=bundle.type, origin=bundle.origin)] += 1
                if (added := bundle.job_of_completion(self.now)) is not None:
                    self.nameless.append(added)

    def _tell(self, job: ModelJob, kind: Callable[..., Event], **values: object) -> None:
        self.told[kind(id=job.id, type=job.type, origin=job.origin, **values)] += 1

    def _tell_lost(self, job: ModelJob) -> None:
        if job.is_running:
            assert job.id is not None
            assert job.claim_id is not None
            self.told[ClaimLost(id=job.id, claim_id=job.claim_id)] += 1


def id_in(ids: Iterable[UUID]) -> Callable[[ModelJob | ModelBundle], bool]:
    """Return what is true of the job or bundle that has one of *ids*."""
    wanted = set(ids)
    return lambda row: row.id in wanted


def _ids(jobs: Iterable[ModelJob]) -> frozenset[UUID]:
    return frozenset(job.id for job in jobs if job.id is not None)


def _value(text: str | None) -> object:
    return None if text is None else json.loads(text)
