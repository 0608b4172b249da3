"""How the models are read: rows come and go by the service, never by the ORM."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Never, TypeVar

from django.db import models
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Now

from jobqueue.contrib.django.configuration import configuration
from jobqueue.models import State

_M = TypeVar("_M", bound=models.Model)

_WAITS: Final = Q(cancelled_at__isnull=True, stopped_at__isnull=True, started_at__isnull=True)
_STOPPED: Final = Q(cancelled_at__isnull=True, stopped_at__isnull=False)

# The same as jobqueue_pg's list of jobs in a state, in terms of columns that there are statistics of, and indexes.
_IN_STATE: Final[Mapping[State, Q]] = {
    State.CANCELLED: Q(cancelled_at__isnull=False),
    State.FAILED: _STOPPED & Q(error_msg__isnull=False),
    State.SUCCEEDED: _STOPPED & Q(error_msg__isnull=True),
    State.RUNNING: Q(cancelled_at__isnull=True, stopped_at__isnull=True, started_at__isnull=False),
    State.RETRYING: _WAITS & Q(run_count__gt=0),
    State.SCHEDULED: _WAITS & Q(run_count__lte=0, start_at__gt=Now()),
    State.AVAILABLE: _WAITS & Q(run_count__lte=0) & (Q(start_at__isnull=True) | Q(start_at__lte=Now())),
}


def in_state(*states: State | str) -> Q:
    """Return the condition of being in one of *states*. Raises ValueError for what is none."""
    condition = Q(pk__in=[])
    for state in states:
        condition |= _IN_STATE[State(state)]
    return condition


def refuse(what: str, instead: str) -> Never:
    """Say that the ORM does not write here, and who does."""
    raise TypeError(f"{what} is read-only, since workers rely on how its rows change: use {instead}")


class ReadOnlyQuerySet(models.QuerySet[_M]):
    """Reads; what would write is refused."""

    def create(self, **_: Any) -> Never:
        """Refuse."""
        self._refuse()

    def update(self, **_: Any) -> Never:
        """Refuse."""
        self._refuse()

    def delete(self) -> Never:
        """Refuse."""
        self._refuse()

    def bulk_create(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        self._refuse()

    def bulk_update(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        self._refuse()

    def get_or_create(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        self._refuse()

    def update_or_create(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        self._refuse()

    def _raw_delete(self, using: str | None) -> Never:
        """Refuse: what a row refers to may be deleted together with it."""
        del using
        self._refuse()

    def _refuse(self) -> Never:
        refuse(self.model.__name__, getattr(self.model, "written_by", "the service"))


class JobQuerySet(ReadOnlyQuerySet[_M]):
    """Jobs, whose states can be asked for as if each were a column: ``filter(state="failed")``, ``values("state")``."""

    def filter(self, *args: Any, **kwargs: Any) -> "JobQuerySet[_M]":
        """Narrow down; ``state`` and ``state__in`` become conditions on columns, which have indexes."""
        conditions, rest = _conditions(kwargs)
        return super().filter(*args, *conditions, **rest)

    def exclude(self, *args: Any, **kwargs: Any) -> "JobQuerySet[_M]":
        """Narrow down; as ``filter``."""
        conditions, rest = _conditions(kwargs)
        return super().exclude(*args, *conditions, **rest)


def _conditions(given: Mapping[str, Any]) -> tuple[list[Q], dict[str, Any]]:
    rest = dict(given)
    found: list[Q] = []
    if "state" in rest:
        found.append(in_state(rest.pop("state")))
    if "state__in" in rest:
        found.append(in_state(*_states(rest.pop("state__in"))))
    return found, rest


def _states(given: Iterable[State | str]) -> list[State]:
    return [State(each) for each in given]


class QueueManager(models.Manager[_M]):
    """Reads from the queue's database, whatever routers say."""

    def get_queryset(self) -> ReadOnlyQuerySet[_M]:
        """Return all rows."""
        return ReadOnlyQuerySet(self.model, using=self._db or configuration().database)


class JobManager(QueueManager[_M]):
    """Reads jobs with their states, from the queue's database, whatever routers say."""

    def get_queryset(self) -> JobQuerySet[_M]:
        """Return all of them."""
        jobs: JobQuerySet[_M] = JobQuerySet(self.model, using=self._db or configuration().database)
        return jobs.annotate(state=state_of_job())


def state_of_job() -> Case:
    """Return the SQL twin of ``Job.state``."""
    return Case(
        When(cancelled_at__isnull=False, then=Value(State.CANCELLED.value)),
        When(stopped_at__isnull=False, error_msg__isnull=False, then=Value(State.FAILED.value)),
        When(stopped_at__isnull=False, then=Value(State.SUCCEEDED.value)),
        When(started_at__isnull=False, then=Value(State.RUNNING.value)),
        When(run_count__gt=0, then=Value(State.RETRYING.value)),
        When(start_at__gt=Now(), then=Value(State.SCHEDULED.value)),
        default=Value(State.AVAILABLE.value),
        output_field=models.CharField(),
    )
