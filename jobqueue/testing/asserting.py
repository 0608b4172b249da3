"""What is enqueued: looked up, and asserted, in the test's own transaction if it has one."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast, overload

import attrs

from jobqueue.adding import job_type_named
from jobqueue.clock import present
from jobqueue.context import current_service
from jobqueue.errors import PayloadError
from jobqueue.models import Job
from jobqueue.pauses import covers
from jobqueue.payload import dump_json, job_type_of, load_json
from jobqueue.service import JobType, Service

_ANY: Final[Any] = object()
_Object = Mapping[str, Any]
_Array = Sequence[Any]
_NO_FIELDS: Final[_Object] = {}
_MOST_SHOWN: Final = 10
_MOST_DIFFERENCES: Final = 5
_LONGEST_VALUE: Final = 200


@overload
def assert_enqueued(
    type_or_handler: str | JobType | type,
    payload: object = ...,
    *,
    includes: Mapping[str, object] | None = None,
    where: Callable[[Job], object] | None = None,
    priority: int = ...,
    start_at: datetime | None = ...,
    count: None = None,
    connection: object = None,
    service: Service | None = None,
) -> Job: ...
@overload
def assert_enqueued(
    type_or_handler: str | JobType | type,
    payload: object = ...,
    *,
    includes: Mapping[str, object] | None = None,
    where: Callable[[Job], object] | None = None,
    priority: int = ...,
    start_at: datetime | None = ...,
    count: int,
    connection: object = None,
    service: Service | None = None,
) -> list[Job]: ...


def assert_enqueued(
    type_or_handler: str | JobType | type,
    payload: object = _ANY,
    *,
    includes: Mapping[str, object] | None = None,
    where: Callable[[Job], object] | None = None,
    priority: int = _ANY,
    start_at: datetime | None = _ANY,
    count: int | None = None,
    connection: object = None,
    service: Service | None = None,
) -> Job | list[Job]:
    """Assert that a job of a type waits to be run, now or later; return the first, or, with *count*, all so many.

    A type is a name, a pattern, a handler or a payload class. *payload* is what it was enqueued with, and has to be
    equal as JSON; ``unittest.mock.ANY`` may stand for a part of it. *includes* is for some of its fields. *where* is
    called with the job, and says whether it is meant. What is not given can be anything. The message of the error has
    the jobs of that type that are enqueued, with what is different about them, and counts the others.

    It looks at what is in the transaction on *connection*; None: at what a call without a connection sees.

    Raises:
        AssertionError: there is no such job, or not so many.
    """
    __tracebackhide__ = True
    wanted = _Wanted.of(type_or_handler, payload, includes, where, priority, start_at)
    waiting = enqueued_jobs(connection=connection, service=service)
    found = [job for job in waiting if wanted.is_met_by(job)]
    if count is None and found:
        return found[0]
    if count is not None and len(found) == count:
        return found
    number = "no job is" if not found else f"{len(found)} {'job is' if len(found) == 1 else 'jobs are'}"
    expected = "" if count is None else f", and not {count}"
    raise AssertionError(f"{number} enqueued of {wanted}{expected}\n{wanted.told_of(waiting)}")


def assert_not_enqueued(
    type_or_handler: str | JobType | type,
    payload: object = _ANY,
    *,
    includes: Mapping[str, object] | None = None,
    where: Callable[[Job], object] | None = None,
    priority: int = _ANY,
    start_at: datetime | None = _ANY,
    connection: object = None,
    service: Service | None = None,
) -> None:
    """Assert that no such job waits to be run; the arguments are those of ``assert_enqueued``.

    Raises:
        AssertionError: there is one.
    """
    __tracebackhide__ = True
    wanted = _Wanted.of(type_or_handler, payload, includes, where, priority, start_at)
    found = [job for job in enqueued_jobs(connection=connection, service=service) if wanted.is_met_by(job)]
    if found:
        is_are = "job is" if len(found) == 1 else "jobs are"
        raise AssertionError(f"{len(found)} {is_are} enqueued of {wanted}\n{_listed(map(_described, found))}")


def enqueued_jobs(
    type_or_handler: str | JobType | type | None = None, *, connection: object = None, service: Service | None = None
) -> list[Job]:
    """List the jobs that wait to be run, now or later, in the order in which they were enqueued; of one type, or all.

    Those that wait for a retry are among them; those that are running, or have stopped, are not.
    """
    service = current_service() if service is None else service
    with service.store.within(connection):
        waiting = [job for job in service.get_all_jobs_to_do() if not job.started]
    name = None if type_or_handler is None else _type_of(type_or_handler)
    found = [job for job in waiting if name is None or covers(name, job.type)]
    return sorted(found, key=lambda job: (job.created_at or present(), job.id))


@attrs.frozen
class _Wanted:
    """What is asserted of a job."""

    job_type: str
    payload: Any
    includes: Mapping[str, Any]
    where: Callable[[Job], object] | None
    fields: Mapping[str, object]

    @classmethod
    def of(
        cls,
        type_or_handler: str | JobType | type,
        payload: object,
        includes: Mapping[str, object] | None,
        where: Callable[[Job], object] | None,
        *fields: object,
    ) -> "_Wanted":
        named = dict(zip(("priority", "start_at"), fields, strict=True))
        return cls(
            job_type=_type_of(type_or_handler),
            payload=payload if payload is _ANY else _plain(payload),
            includes={name: _plain(value) for name, value in (includes or {}).items()},
            where=where,
            fields={name: value for name, value in named.items() if value is not _ANY},
        )

    def is_met_by(self, job: Job) -> bool:
        return covers(self.job_type, job.type) and not self._differences(job)

    def _differences(self, job: Job) -> list[str]:
        found = [
            f"{name} is {getattr(job, name)!r}, and not {value!r}"
            for name, value in self.fields.items()
            if getattr(job, name) != value
        ]
        if self.payload is not _ANY:
            found += _differences("payload", self.payload, job.payload)
        plain: object = job.payload
        payload = cast("_Object", plain) if isinstance(plain, dict) else _NO_FIELDS
        for name, value in self.includes.items():
            if name not in payload:
                found.append(f"payload has no {name!r}")
            else:
                found += _differences(f"payload[{name!r}]", value, payload[name])
        if not found and self.where is not None and not self.where(job):
            found.append("where= says that it is not meant")
        return found

    def told_of(self, waiting: Sequence[Job]) -> str:
        """Tell what is enqueued instead."""
        like = [job for job in waiting if covers(self.job_type, job.type)]
        others = Counter(job.type for job in waiting if not covers(self.job_type, job.type))
        if not waiting:
            return "nothing is enqueued at all"
        told = [_listed(map(self._compared, like))] if like else ["none of this type"]
        if others:
            told.append("of other types: " + ", ".join(f"{number} x {name!r}" for name, number in others.items()))
        return "\n".join(told)

    def _compared(self, job: Job) -> str:
        differences = self._differences(job)
        more = len(differences) - _MOST_DIFFERENCES
        lines = [*differences[:_MOST_DIFFERENCES], *([f"and {more} more differences"] if more > 0 else [])]
        return "\n      ".join([_described(job), *lines])

    def __str__(self) -> str:
        said = [] if self.payload is _ANY else [f"payload {_short(self.payload)}"]
        said += [f"a payload that includes {_short(self.includes)}"] if self.includes else []
        said += [f"{name} {value!r}" for name, value in self.fields.items()]
        said += ["what where= says"] if self.where is not None else []
        return f"type {self.job_type!r}" + (f" with {', '.join(said)}" if said else "")


def _type_of(type_or_handler: str | JobType | type) -> str:
    if isinstance(type_or_handler, str):
        return type_or_handler
    if isinstance(type_or_handler, type):
        return job_type_of(type_or_handler)
    # That of a handler for a pattern is the pattern.
    found = getattr(type_or_handler, "type", None)
    return found if isinstance(found, str) else job_type_named(type_or_handler)


def _plain(payload: object) -> Any:
    """Return *payload* as it comes back from the queue; what cannot be stored may stand for anything."""
    try:
        return load_json(dump_json(payload))
    except PayloadError:
        return payload


def _differences(where: str, wanted: Any, found: Any) -> list[str]:
    """Say where two JSON values differ."""
    if wanted == found:
        return []
    match wanted, found:
        case dict(), dict():
            return list(_differences_of_objects(where, cast("_Object", wanted), cast("_Object", found)))
        case list(), list() if len(cast("_Array", wanted)) == len(cast("_Array", found)):
            pairs = enumerate(zip(cast("_Array", wanted), cast("_Array", found), strict=True))
            return [line for place, (one, other) in pairs for line in _differences(f"{where}[{place}]", one, other)]
        case _:
            pass
    return [f"{where} is {_short(cast('object', found))}, and not {_short(cast('object', wanted))}"]


def _differences_of_objects(where: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in wanted:
        if name not in found:
            yield f"{where} has no {name!r}"
        else:
            yield from _differences(f"{where}[{name!r}]", wanted[name], found[name])
    for name in found:
        if name not in wanted:
            yield f"{where} has {name!r}, too: {_short(found[name])}"


def _described(job: Job) -> str:
    return f"{job.type!r} {_short(job.payload)}, {job.state}, job {job.id}"


def _listed(lines: Iterable[str]) -> str:
    found = list(lines)
    more = len(found) - _MOST_SHOWN
    return "\n".join([*(f"  {line}" for line in found[:_MOST_SHOWN]), *([f"  and {more} more"] if more > 0 else [])])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
