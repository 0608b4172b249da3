"""How long jobs are kept after they have stopped."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypedDict, cast

import attrs

from jobqueue.limits import check_type_or_pattern
from jobqueue.models import Job

Mode = Literal["delete", "archive"]

_STATES: Final = ("succeeded", "failed", "cancelled")
_DELETE: Final[Mode] = "delete"
_MODES: Final = (_DELETE, "archive")
LONGEST_AGE: Final = timedelta(days=365 * 1000)


class Ages(TypedDict, total=False):
    """For how long jobs of a type are kept, where that differs: None is for ever."""

    succeeded: timedelta | None
    failed: timedelta | None
    cancelled: timedelta | None


def _check_age(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, or None to keep jobs for ever, not {value!r}")
    if not timedelta(0) <= value <= LONGEST_AGE:
        raise ValueError(f"{name} must be from zero to a thousand years, not {value}: None keeps jobs for ever")


def _age(_: object, attribute: "attrs.Attribute[timedelta]", value: object) -> None:
    _check_age(attribute.name, value)


def _mode(_: object, __: "attrs.Attribute[Mode]", value: object) -> None:
    if value not in _MODES:
        raise ValueError(f"mode must be 'delete' or 'archive', not {value!r}")


def _by_type(value: object) -> Mapping[str, Ages]:
    """Return a copy that nobody changes."""
    if not isinstance(value, Mapping):
        raise TypeError(f"by_type must be a mapping of job types, or patterns, to ages, not {value!r}")
    copy: dict[str, Ages] = {}
    for name, ages in cast("Mapping[str, object]", value).items():
        check_type_or_pattern("by_type", name)
        if not isinstance(ages, Mapping):
            raise TypeError(f"by_type[{name!r}] must be like {{'succeeded': timedelta(days=1)}}, not {ages!r}")
        known = dict(cast("Mapping[str, Any]", ages))
        if unknown := sorted(map(str, known.keys() - set(_STATES))):
            raise ValueError(f"by_type[{name!r}] has {', '.join(unknown)}, but ages are {', '.join(_STATES)}")
        for state, age in known.items():
            _check_age(f"by_type[{name!r}][{state!r}]", age)
        copy[name] = cast("Ages", known)
    return MappingProxyType(copy)


@attrs.frozen(kw_only=True)
class Rule:
    """For how long jobs are kept whose type is *name*, or with *is_prefix* begins with it."""

    name: str
    is_prefix: bool
    succeeded: timedelta | None
    failed: timedelta | None
    cancelled: timedelta | None

    @property
    def ages(self) -> tuple[timedelta | None, ...]:
        """All three."""
        return self.succeeded, self.failed, self.cancelled

    def matches(self, job_type: str) -> bool:
        """Whether it is for jobs of that type."""
        return job_type.startswith(self.name) if self.is_prefix else job_type == self.name


@attrs.frozen(kw_only=True)
class Retention:
    """How long jobs are kept after they have stopped, by how they ended; None is for ever.

    ``timedelta(0)`` removes a job in the moment in which it stops. *by_type* says otherwise for some types, or patterns
    of types: ``{"mail:*": {"succeeded": timedelta(hours=1)}}``; what it leaves open is as for all. The type itself
    comes before a pattern, and a longer pattern before a shorter one.

    Members of a bundle go with it, when it has been complete for as long as any of them is to be kept.

    With *mode* ``"archive"`` jobs are not deleted, but moved to the table ``job_archive``, which nobody empties.

    Raises:
        TypeError: an age is no timedelta.
        ValueError: an age is negative, or *mode* is another.
        InvalidJobError: a key of *by_type* is neither a job type nor a pattern.
    """

    succeeded: timedelta | None = attrs.field(default=timedelta(days=7), validator=_age)
    failed: timedelta | None = attrs.field(default=timedelta(days=90), validator=_age)
    cancelled: timedelta | None = attrs.field(default=timedelta(days=7), validator=_age)
    by_type: Mapping[str, Ages] = attrs.field(factory=dict[str, Ages], converter=_by_type, hash=False)
    mode: Mode = attrs.field(default=_DELETE, validator=_mode)

    @classmethod
    def keep_all(cls) -> Self:
        """Return the retention by which nothing is ever removed."""
        return cls(succeeded=None, failed=None, cancelled=None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """One for each type or pattern, that which counts first; the last one is for all."""
        exact = sorted(name for name in self.by_type if not name.endswith("*"))
        prefixes = sorted((name for name in self.by_type if name.endswith("*")), key=len, reverse=True)
        rules = [self._rule(name, self.by_type[name]) for name in (*exact, *prefixes)]
        return (*rules, self._rule("*", {}))

    def _rule(self, name: str, ages: Ages) -> Rule:
        return Rule(
            name=name.removesuffix("*"),
            is_prefix=name.endswith("*"),
            succeeded=ages.get("succeeded", self.succeeded),
            failed=ages.get("failed", self.failed),
            cancelled=ages.get("cancelled", self.cancelled),
        )

    def _ages(self) -> Iterator[timedelta]:
        return (age for rule in self.rules for age in rule.ages if age is not None)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever removed."""
        return not any(True for _ in self._ages())

    @property
    def removes_at_once(self) -> bool:
        """Whether there are jobs that are removed when they stop."""
        return timedelta(0) in self._ages()

    @property
    def youngest(self) -> timedelta | None:
        """The least age at which a job is removed; None if none is."""
        return min(self._ages(), default=None)

    def age_for(self, job: Job) -> timedelta | None:
        """Return for how long *job*, which has stopped, is kept; None is for ever."""
        rule = next(rule for rule in self.rules if rule.matches(job.type))
        if job.cancelled_at is not None:
            return rule.cancelled
        return rule.failed if job.has_error else rule.succeeded


KEEP_ALL: Final = Retention.keep_all()
"""Nothing is removed by itself."""


def as_retention(value: Any) -> Any:
    """Return the Retention that a mapping means, which settings may have that import nothing; what is none, as it is.

    Raises ValueError: the mapping means none.
    """
    if not isinstance(value, Mapping):
        return value
    said: dict[Any, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
    names = [each.name for each in attrs.fields(Retention)]
    if unknown := [name for name in said if name not in names]:
        raise ValueError(f"retention has {unknown[0]!r:.60}, but what it may have is {', '.join(names)}")
    try:
        return Retention(**said)
    except (TypeError, ValueError) as error:
        raise ValueError(f"retention cannot be meant: {error}") from error


def check_retention(value: object) -> None:
    """Refuse what is neither a Retention nor None."""
    if not isinstance(value, Retention | None):
        raise TypeError(
            f"retention must be Retention(...), Retention.keep_all(), or None for what is usual, not {value!r}"
        )
