"""The part of the service that acts on many jobs at once."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Final
from uuid import UUID

import attrs

from jobqueue.acting import Acted
from jobqueue.cleaner import Cleaner, OnProgress
from jobqueue.cleaning import CleanResult
from jobqueue.errors import InvalidJobError
from jobqueue.job_filter import JobFilter
from jobqueue.limits import COUNT, check_ids, check_int
from jobqueue.models import State
from jobqueue.queue_service.changing import changing
from jobqueue.queue_service.opened import Opened
from jobqueue.retention import Retention, check_retention
from jobqueue.service.acts import OnCount

_MOST_AT_A_TIME: Final = range(1, 10_001)


class Acts(Opened):
    """Walks through the jobs that a filter means, the newest first; each page is a transaction of its own."""

    @changing
    def replay_jobs(
        self,
        ids: Iterable[UUID] | None = None,
        *,
        type: str | None = None,
        origin: str | None = None,
        bundle_id: UUID | None = None,
        error: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        limit: int | None = None,
        batch_size: int = 1000,
        on_progress: OnCount | None = None,
    ) -> int:
        """Make all jobs as good as new that have failed and are what is given."""
        acting = self._open_store().acting
        which = JobFilter.of(
            state=State.FAILED,
            type=type,
            origin=origin,
            bundle_id=bundle_id,
            error=error,
            older_than=older_than,
            newer_than=newer_than,
        )
        pages = _Pages(which, ids, limit, batch_size)
        return pages.act(
            lambda which, limit, after: acting.replay(which, limit=limit, after=after), acting.estimate, on_progress
        )

    @changing
    def delete_jobs(
        self,
        ids: Iterable[UUID] | None = None,
        *,
        state: State | str | None = None,
        type: str | None = None,
        origin: str | None = None,
        bundle_id: UUID | None = None,
        error: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        limit: int | None = None,
        batch_size: int = 1000,
        on_progress: OnCount | None = None,
    ) -> int:
        """Delete all jobs that are what is given."""
        acting = self._open_store().acting
        which = JobFilter.of(
            state=state,
            type=type,
            origin=origin,
            bundle_id=bundle_id,
            error=error,
            older_than=older_than,
            newer_than=newer_than,
        )
        if which.is_empty and ids is None:
            raise InvalidJobError(
                "delete_jobs needs to be told which: ids, or at least one of state, type, origin, bundle_id, error, "
                "older_than and newer_than. delete_all_jobs_and_bundles() deletes everything",
                field="state",
            )
        pages = _Pages(which, ids, limit, batch_size)
        return pages.act(
            lambda which, limit, after: acting.delete(which, limit=limit, after=after), acting.estimate, on_progress
        )

    @changing
    def clean(self, retention: Retention | None = None, on_progress: OnProgress | None = None) -> CleanResult:
        """Remove what *retention* does not keep, now and in this thread."""
        _check_callable(on_progress)
        return self._cleaner(retention).clean_all(on_progress)

    def count_old_jobs(self, retention: Retention | None = None) -> CleanResult:
        """Count what ``clean`` would remove; members of bundles are not counted."""
        return self._cleaner(retention).count_all()

    def _cleaner(self, retention: Retention | None) -> Cleaner:
        store = self._open_store()
        check_retention(retention)
        return Cleaner(store.cleaning, retention or store.retention)


def _check_callable(on_progress: object) -> None:
    """Refuse what would fail only when something is done."""
    if on_progress is not None and not callable(on_progress):
        raise TypeError(f"on_progress must be callable, not {on_progress!r:.40}")


class _Pages:
    """The jobs that are meant, page by page."""

    def __init__(self, which: JobFilter, ids: Iterable[UUID] | None, limit: int | None, size: int) -> None:
        self._which = which
        self._ids = None if ids is None else tuple(dict.fromkeys(check_ids(ids)))
        self._limit = None if limit is None else check_int("limit", limit, COUNT[1:])
        self._size = check_int("batch_size", size, _MOST_AT_A_TIME)

    def act(
        self,
        act: Callable[[JobFilter, int, object], Acted],
        estimate: Callable[[JobFilter], int | None],
        on_progress: OnCount | None,
    ) -> int:
        """Act on page after page; return how many jobs were changed."""
        _check_callable(on_progress)
        done = 0
        expected = self._expected(estimate) if on_progress is not None else None
        for which in self._filters():
            place: object = None
            while self._limit is None or done < self._limit:
                left = self._size if self._limit is None else min(self._size, self._limit - done)
                acted = act(which, left, place)
                done += acted.number
                if on_progress is not None:
                    on_progress(done, None if expected is None else max(done, expected))
                place = acted.place
                is_last = which.ids is not None and left >= len(which.ids)
                if place is None or is_last:
                    break
        return done

    def _filters(self) -> Iterator[JobFilter]:
        if self._ids is None:
            yield self._which
            return
        for start in range(0, len(self._ids), self._size):
            yield attrs.evolve(self._which, ids=self._ids[start : start + self._size])

    def _expected(self, estimate: Callable[[JobFilter], int | None]) -> int | None:
        number = estimate(self._which) if self._ids is None else len(self._ids)
        return number if number is None or self._limit is None else min(number, self._limit)
