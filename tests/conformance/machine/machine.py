"""The state machine: whatever is done to a queue through its ports, it is done to the model, too."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from jobqueue import DuplicateJobError, Job, JobBundle, JobDesc, State
from jobqueue.job_filter import JobFilter
from jobqueue.models import new_id
from jobqueue.outcomes import Claimant, Outcome
from tests.conformance.machine import values
from tests.conformance.machine.deletions import DELETIONS
from tests.conformance.machine.model import Model, id_in
from tests.conformance.machine.rows import ModelJob
from tests.conformance.machine.shown import bundle_shown, job_shown
from tests.fixtures.backends import Backend, Hearing
from tests.fixtures.stores import START

ALL = 10_000
BY_ID, BY_BUNDLE = "jobs by id", "bundles by id"


class QueueMachine(RuleBasedStateMachine):
    """One queue and its model. Whatever a call returns, and after each step all that can be read or heard, agrees.

    *tells_by_clock* is false where jobs are told to be available by another clock than that of the test.
    """

    jobs = Bundle("jobs")
    """Jobs as they were added, whatever has become of them since."""
    claims = Bundle("claims")
    """Jobs as they were claimed; the claim may be lost by now."""
    several_jobs = st.lists(jobs | claims, min_size=1, max_size=3)
    ends_of_claims = st.lists(
        st.tuples(claims, values.ends), min_size=1, max_size=4, unique_by=lambda end: end[0].fence
    )

    def __init__(self, backend: Backend, hearing: Hearing, *, tells_by_clock: bool) -> None:
        super().__init__()
        self.backend, self.store, self.workers = backend, backend.store, backend.worker_store
        self.hearing = hearing
        self.clock = backend.clock
        self.clock.moment = START
        self.store.delete_all_jobs_and_bundles()
        self.hearing.heard()
        self.model = Model(self._now, self._now if tells_by_clock else lambda: datetime.now(UTC))
        self.claims_seen: set[tuple[UUID, UUID | None]] = set()
        self.completions_seen: set[UUID] = set()

    def _now(self) -> datetime:
        assert self.clock.moment is not None
        return self.clock.moment

    # --- adding

    @rule(target=jobs, desc=values.descs, delay=values.delays)
    def add_job(self, desc: JobDesc, delay: timedelta | None) -> Job:
        job = values.job_of(desc)
        self.store.add_job(job, delay=delay)
        self.model.add([job], delay=delay)
        return job

    @rule(target=jobs, desc=values.descs, unique=values.unique, payload=st.integers(0, 3), way=values.ways)
    def add_unique_job(self, desc: JobDesc, unique: dict[str, Any], payload: int, way: Any) -> Any:
        job = values.job_of(attrs.evolve(desc, payload=payload), **unique)
        holder = self.model.who_holds_key_of(job)
        if holder is None:
            assert not self.store.add_job(job, delay=None, on_conflict=way).is_duplicate
            self.model.add([job])
            return job
        if way == "raise":
            with pytest.raises(DuplicateJobError) as caught:
                self.store.add_job(job, delay=None, on_conflict=way)
            assert caught.value.existing_id == holder.id
            return multiple()
        found = self.store.add_job(job, delay=None, on_conflict=way)
        if way == "replace_payload":
            self.model.replace_payload(holder, job)
        assert job_shown(found) == {**holder.shown(), "is_duplicate": True}
        return multiple()

    @initialize(target=jobs, kind=values.kinds, descs=values.members, described=values.bundles)
    def begin(self, kind: str, descs: list[JobDesc], described: dict[str, Any]) -> Any:
        return self.add_bundle(kind, descs, described)

    @initialize(target=claims, descs=values.several_descs, limit=values.limits, claimant=values.claimants)
    def begin_to_work(self, descs: list[JobDesc], limit: int, claimant: Claimant) -> Any:
        self.add_jobs([attrs.evolve(descs[0], start_at=None), *descs[1:]], None)
        return multiple(*self._trip([], ["*"], limit, claimant))

    @rule(target=jobs, descs=values.several_descs, again=st.none() | jobs | claims)
    def add_jobs(self, descs: list[JobDesc], again: Job | None) -> Any:
        """Add some jobs; *again* one that was there before: if it still is, nothing is added."""
        added = [values.job_of(desc) for desc in descs]
        if again is not None:
            added.append(attrs.evolve(again, bundle_id=None, unique_key=None, unique_for=None))
        if again is not None and again.id in self.model.jobs:
            with pytest.raises(DuplicateJobError):
                self.store.add_jobs(added)
            return multiple()
        self.store.add_jobs(added)
        self.model.add(added)
        return multiple(*added)

    @rule(target=jobs, kind=values.kinds, descs=values.members, described=values.bundles)
    def add_bundle(self, kind: str, descs: list[JobDesc], described: dict[str, Any]) -> Any:
        made = JobBundle.new(kind, descs, **described)
        self.store.add_bundle(made)
        self.model.add(made.jobs, made)
        return multiple(*made.jobs)

    # --- working

    @rule(
        target=claims,
        types=values.wanted,
        limit=values.limits,
        claimant=values.claimants,
        ends=st.lists(values.ends, max_size=4),
    )
    def work(self, types: list[str], limit: int, claimant: Claimant, ends: list[str]) -> Any:
        """Claim some jobs, and end some of them at once."""
        claimed = self._trip([], types, limit, claimant)
        self._save([values.ENDS[end](claim) for claim, end in zip(claimed, ends, strict=False)])
        return multiple(*claimed)

    @rule(target=claims, ends=ends_of_claims, types=values.wanted, limit=st.integers(0, 4), claimant=values.claimants)
    def make_trip(self, ends: list[tuple[Job, str]], types: list[str], limit: int, claimant: Claimant) -> Any:
        outcomes = [values.ENDS[end](claim) for claim, end in ends]
        return multiple(*self._trip(outcomes, types, limit, claimant))

    def _trip(self, outcomes: list[Outcome], types: list[str], limit: int, claimant: Claimant) -> tuple[Job, ...]:
        trip = self.workers.make_trip(outcomes, types, limit, claimant)
        is_full = len(trip.claimed) >= limit
        assert trip.next_due_in == (None if is_full else self.model.next_due_in(types))
        claims = {(job.id, job.claim_id) for job in trip.claimed}
        assert not claims & self.claims_seen, "a claim has the fence of an earlier one"
        self.claims_seen |= claims
        self.model.claim(trip.claimed, types, limit, claimant)
        assert [job_shown(job) for job in trip.claimed] == [
            self.model.jobs[job.id].shown_to_worker() for job in trip.claimed
        ]
        assert trip.saved == self.model.save(outcomes)
        return trip.claimed

    @rule(ends=ends_of_claims, twice=st.booleans())
    def save_outcomes(self, ends: list[tuple[Job, str]], twice: bool) -> None:
        self._save([values.ENDS[end](claim) for claim, end in ends] * (1 + twice))

    def _save(self, outcomes: list[Outcome]) -> None:
        assert self.workers.save_outcomes(outcomes) == self.model.save(outcomes)

    @rule(claimed=st.lists(claims, min_size=1, max_size=4), progress=st.none() | values.progress)
    def beat(self, claimed: list[Job], progress: str | None) -> None:
        """Beat for some claims, or say how far one is, which is no beat."""
        fences = [claim.fence for claim in claimed]
        if progress is None:
            assert self.workers.touch_jobs(fences) == self.model.touch(fences)
        else:
            said = attrs.evolve(claimed[0], progress_json=progress).progress
            assert self.store.save_progress(fences[0], progress) == self.model.say(fences[0], said)

    @precondition(lambda self: any(job.is_beating for job in self.model.jobs.values()))
    @rule(after=values.passing, dead_for=values.dead_for, max_rescues=values.max_rescues)
    def reap(self, after: timedelta, dead_for: timedelta, max_rescues: int) -> None:
        self.clock.advance(after)
        rescues = self.workers.reap_jobs(dead_for, max_rescues)
        assert Counter(rescues) == Counter(self.model.reap(dead_for, max_rescues))

    # --- managing

    @rule(act=st.sampled_from(["reset", "replay", "cancel"]), chosen=several_jobs, unknown=st.booleans())
    def manage(self, act: str, chosen: list[Job], unknown: bool) -> None:
        ids = [job.id for job in chosen] + [new_id()] * unknown
        if act == "replay":
            ids += [id_ for id_, job in self.model.jobs.items() if job.has_failed]
        assert getattr(self.store, f"{act}_jobs")(iter(ids)) == getattr(self.model, act)(ids)

    @rule(job=jobs | claims, start_at=values.start_at)
    def reschedule(self, job: Job, start_at: datetime | None) -> None:
        assert self.store.reschedule_job(job.id, start_at) == self.model.reschedule(job.id, start_at)

    @precondition(lambda self: self._unseen())
    @rule(target=jobs)
    def see_jobs_of_completions(self) -> Any:
        """From now on they are among those to which something is done."""
        unseen = self._unseen()
        self.completions_seen |= unseen
        return multiple(*self.store.get_jobs(unseen))

    def _unseen(self) -> set[UUID]:
        jobs = self.model.jobs.items()
        return {id_ for id_, job in jobs if job.completes_bundle_id is not None} - self.completions_seen

    # --- deleting

    @rule(what=st.sampled_from([BY_ID, BY_ID, BY_BUNDLE, *DELETIONS]), chosen=several_jobs, unknown=st.booleans())
    def delete(self, what: str, chosen: list[Job], unknown: bool) -> None:
        if what in DELETIONS:
            delete, delete_in_model = DELETIONS[what]
            expected = delete_in_model(self.model)
            assert delete(self.backend) == (None if expected is None else len(expected))
        elif what == BY_BUNDLE:
            ids = [job.bundle_id or job.id for job in chosen] + [new_id()] * unknown
            assert self.store.delete_job_bundles(iter(ids)) == self.model.delete_bundles(id_in(ids))
        else:
            ids = [job.id for job in chosen] + [new_id()] * unknown
            assert self.store.delete_jobs(iter(ids)) == self.model.delete(id_in(ids))

    @precondition(lambda self: any(bundle.may_go_some_day for bundle in self.model.bundles.values()))
    @rule(kept_for=values.kept_for)
    def delete_succeeded_bundles(self, kept_for: timedelta) -> None:
        deleted = self.workers.delete_succeeded_bundles(kept_for)
        assert deleted == len(self.model.delete_succeeded_bundles(kept_for))

    # --- looking

    @rule(
        after=values.passing,
        state=st.none() | st.sampled_from(State),
        type=st.none() | values.types,
        limit=values.limits,
    )
    def let_time_pass(self, after: timedelta, state: State | None, type: str | None, limit: int) -> None:
        """Look at everything in every way after that: more depends on the time than is stored."""
        self.clock.advance(after)
        self._list(JobFilter(state=state, type=type), limit)
        self._read_by_what_became_of_them()

    def _list(self, which: JobFilter, limit: int) -> None:
        listed: list[Job] = []
        after = None
        while page := self.store.list_jobs(which, limit=limit, after=after):
            assert len(page) <= limit
            listed += page
            after = (page[-1].created_at or START, page[-1].id)
        assert _ids(listed) == _ids(self.model.newest_first(which))

    def _read_by_what_became_of_them(self) -> None:
        assert _ids(self.store.get_all_jobs_to_do()) == _ids(self.model.to_do())
        assert _ids(self.store.get_all_jobs_started_before(self._now())) == _ids(self.model.started_before(self._now()))
        assert _ids(self.store.get_all_jobs_with_errors()) == _ids(self.model.with_errors())

    # --- what holds after each step

    @invariant()
    def agrees(self) -> None:
        listed = self.store.list_jobs(JobFilter(), limit=ALL, after=None)
        for job in listed:
            if job.id not in self.model.jobs:
                self.model.name(job.id, job.completes_bundle_id)
        assert not self.model.nameless, "a completion has not added its job"
        assert [job_shown(job) for job in listed] == [job.shown() for job in self.model.newest_first(JobFilter())]
        for bundle in self.model.bundles.values():
            found = self.store.get_job_bundle(bundle.id)
            assert bundle_shown(found) == bundle.shown()
            assert _ids(found.jobs) == _ids(self.model.members_of(bundle.id))
        assert self.store.get_status() == self.model.status()
        assert Counter(self.hearing.heard()) == self.model.told
        self.model.told.clear()


def _ids(jobs: Iterable[Job | ModelJob]) -> list[UUID | None]:
    return [job.id for job in jobs]
