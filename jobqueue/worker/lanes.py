"""Lanes: threads of a pool that are reserved for jobs of one type, or of those that a pattern covers."""

from collections.abc import Mapping, Sequence
from typing import cast

from jobqueue.errors import InvalidJobError, RegistrationError
from jobqueue.limits import COUNT, check_int, check_type_or_pattern
from jobqueue.pauses import covers
from jobqueue.registry import Registry
from jobqueue.settings import WorkerSettings
from jobqueue.worker.atomic_connections import AtomicConnections
from jobqueue.worker.demand import Demand

Lanes = Mapping[str, int]
"""How many threads are reserved for each type or pattern."""


def check_lanes(lanes: object, threads: int) -> dict[str, int]:
    """Return *lanes* that leave at least one of so many *threads* to jobs of any type.

    Raises:
        TypeError: they are no mapping, and not None.
        ValueError: a name or a number in them is none, or no thread is left.
    """
    if lanes is None:
        return {}
    if not isinstance(lanes, Mapping):
        raise TypeError(f'lanes must be a mapping such as {{"mail": 2}}, not {type(lanes).__qualname__} {lanes!r:.40}')
    checked = {
        check_type_or_pattern("lanes", name): _check_number(name, number)
        for name, number in cast("Mapping[object, object]", lanes).items()
    }
    reserved = sum(checked.values())
    if checked and reserved >= threads:
        raise ValueError(
            f"lanes reserve {reserved} of {threads} threads, but at least one has to be left for jobs of any type: "
            f"start {reserved + 1} threads or more"
        )
    return checked


def _check_number(name: object, number: object) -> int:
    try:
        return check_int(f"lanes[{name!r:.40}]", number, COUNT[1:])
    except InvalidJobError as error:
        raise InvalidJobError(str(error), field="lanes") from None


def types_of_lane(lane: str, registry: Registry) -> Sequence[str]:
    """Return the types and patterns to claim for a lane: those of its jobs that have a handler.

    Raises:
        RegistrationError: none of them has.
    """
    types = types_within(lane, registry)
    if not types:
        raise RegistrationError(f"threads are reserved for jobs of type {lane!r}, which has no handler here")
    return types


def types_within(given: str, registry: Registry) -> Sequence[str]:
    """Return the types and patterns to claim for the jobs of a *given* one that have a handler."""
    prefix = given.removesuffix("*")
    patterns = registry.patterns()
    is_pattern = given.endswith("*")
    within = [name for name in patterns if name == given or (is_pattern and name.removesuffix("*").startswith(prefix))]
    is_covered = any(name.endswith("*") and covers(name, prefix) for name in patterns)
    return tuple(dict.fromkeys([*within, given] if is_covered else within))


def demands_of(registry: Registry, settings: WorkerSettings, num_workers: int, lanes: Lanes) -> list[Demand]:
    """Return what the workers claim that take any job, and then what those of each lane do.

    Raises:
        RegistrationError: a lane is for jobs that have no handler, or for atomic ones and gets no connection.
    """
    types_of = {name: types_of_lane(name, registry) for name in lanes}
    atomic = {name: lanes[name] for name, types in types_of.items() if any(map(registry.is_atomic, types))}
    kept = _connections_of(atomic, settings.atomic_connections)

    def owner_of(name: str) -> str:
        handler = registry.find(name)
        return name if handler is None else handler.type

    def demand_of(types: Sequence[str], number: int, connections: int) -> Demand:
        return Demand(
            types,
            registry.is_atomic,
            settings,
            num_workers=number,
            connections=AtomicConnections(connections),
            owner_of=owner_of,
        )

    num_left = settings.atomic_connections - sum(kept.values())
    of_lanes = [demand_of(types, lanes[name], kept.get(name, 0)) for name, types in types_of.items()]
    return [demand_of(registry.patterns(), num_workers - sum(lanes.values()), num_left), *of_lanes]


def _connections_of(atomic: Lanes, number: int) -> Mapping[str, int]:
    """Share connections out among *atomic* lanes, one for each thread at most; leave one for threads without a lane.

    A lane that had none to itself would wait as long as other jobs have all of them.
    """
    if number <= len(atomic):
        raise RegistrationError(
            f"atomic_connections is {number}, but each lane of atomic handlers ({', '.join(map(repr, atomic))}) needs "
            f"one to itself, and threads without a lane need one: set it to {len(atomic) + 1} or more, "
            "or leave out a lane"
        )
    kept = dict.fromkeys(atomic, 0)
    for _ in range(min(number - 1, sum(atomic.values()))):
        wanting = [name for name, threads in atomic.items() if kept[name] < threads]
        kept[min(wanting, key=kept.__getitem__)] += 1
    return kept
