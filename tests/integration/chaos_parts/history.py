"""All that was written down of a chaos run, as the checker sees it."""

import enum
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

Row = Mapping[str, Any]


class Fate(enum.StrEnum):
    """What became of a transaction, as far as its client knows."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"


class Answer(enum.StrEnum):
    """What somebody was told who wanted to add a job with a unique key."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    PENDING = "pending"


@attrs.frozen(kw_only=True)
class KeyedAdd:
    """What an enqueuer asked for who wanted a unique key; moments are of the database's clock."""

    job: str
    type: str
    key: str
    asked_at: float
    answer: Answer | None = None
    """None: nobody was told anything."""
    holder: str | None = None
    """The job that holds the key, as the enqueuer was told."""
    answered_at: float = 0.0


@attrs.frozen(kw_only=True)
class Transaction:
    """What an enqueuer added together."""

    id: str
    jobs: tuple[str, ...]
    """Jobs without a key, and those with one that were added, as far as anybody was told."""
    keyed: tuple[KeyedAdd, ...] = ()
    fate: Fate = Fate.UNKNOWN

    @property
    def maybe(self) -> tuple[str, ...]:
        """Jobs that were added, unless they were duplicates."""
        return tuple(add.job for add in self.keyed if add.answer is None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Jobs that were not added, as was said, because of others."""
        return tuple(add.job for add in self.keyed if add.answer in {Answer.DUPLICATE, Answer.PENDING})


@attrs.frozen(kw_only=True)
class Run:
    """One run of a handler; moments are of the monotonic clock. Of one that was killed, nobody has written the end."""

    job: str
    claim: str
    type: str
    pid: int
    began_at: float
    ended_at: float | None = None
    outcome: str | None = None
    is_lost: bool = False


@attrs.frozen(kw_only=True)
class Request:
    """Something that was asked of the queue about one job; *answer* None: nobody knows whether it was done."""

    act: str
    job: str
    answer: bool | None = None


@attrs.frozen(kw_only=True)
class Change:
    """A committed change of a row, with its moment by the monotonic clock and by that of the database.

    The *subject* is the table; a row that is new or gone, and has no columns *before* or *after* that, is told of as
    "job insert" or "job delete".
    """

    seq: int
    at: float
    wall: float
    subject: str
    id: str
    before: Row
    after: Row
    transaction: int
    began: float
    """When its transaction began, by the database's clock."""
    committed: float
    """When its transaction was committed, by the database's clock."""


@attrs.frozen(kw_only=True)
class History:
    """What has happened, and what there is in the end."""

    transactions: Sequence[Transaction] = ()
    runs: Sequence[Run] = ()
    requests: Sequence[Request] = ()
    changes: Sequence[Change] = ()
    """In the order of their numbers."""
    effects: Sequence[tuple[str, str]] = ()
    """Jobs and claims of what atomic handlers have written."""
    queue: Mapping[str, Row] = attrs.field(factory=dict[str, Row])
    """Jobs that are in the queue in the end."""
    archive: Mapping[str, Row] = attrs.field(factory=dict[str, Row])
    """Jobs that are in the archive in the end; with the columns that it leaves out."""
    bundles: Mapping[str, Row] = attrs.field(factory=dict[str, Row])
    """Those that retention has taken are shown as they were just before."""
    server_starts: Sequence[float] = ()
    """When the server was started, by the database's clock."""

    @cached_property
    def jobs(self) -> Mapping[str, Row]:
        """All jobs that there are, in the queue or in the archive."""
        return {**self.archive, **self.queue}

    def changes_of(self, *subjects: str) -> list[Change]:
        """Return the changes of some kinds."""
        return [change for change in self.changes if change.subject in subjects]
