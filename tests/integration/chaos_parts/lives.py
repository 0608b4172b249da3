"""The lives of claims, as the database has seen them: when each was made, when it ended, and how."""

import enum
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tests.integration.chaos_parts.history import Change, History
from tests.integration.chaos_parts.plan import GO_TYPE

Row = Mapping[str, Any]


class Ending(enum.StrEnum):
    """How a claim ended: by its own outcome, or by being taken away."""

    FINISHED = "finished"
    FAILED = "failed"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    DISCARDED = "discarded"
    GIVEN_BACK = "given back, or reset"
    REAPED = "taken up by the reaper"
    GIVEN_UP = "given up by the reaper"
    CANCELLED = "cancelled"

    @property
    def has_effect(self) -> bool:
        """Whether what an atomic handler did is committed with it."""
        return self in {Ending.FINISHED, Ending.SNOOZED, Ending.DISCARDED}

    @property
    def is_of_run(self) -> bool:
        """Whether only a run that has come to its end can lead to it."""
        return self.has_effect or self in {Ending.FAILED, Ending.RETRIED}


@attrs.define(kw_only=True)
class Life:
    """A claim on one job."""

    job: str
    claim: str
    type: str
    began_at: float
    ended_at: float | None = None
    ending: Ending | None = None
    end: Change | None = None


@attrs.frozen
class Lives:
    """The claims of a run, and the changes that do not fit into the life of any."""

    all: Mapping[tuple[str, str], Life]
    misfits: tuple[tuple[str, str], ...]
    """What is wrong, and with which job."""

    @property
    def ended(self) -> Iterable[tuple[Life, Ending, Change]]:
        """Those that have ended, how, and by what change."""
        for life in self.all.values():
            if life.ending is not None and life.end is not None:
                yield life, life.ending, life.end


def lives_of(history: History) -> Lives:
    """Put the claims together from the changes of jobs; go-jobqueue, which has no claims, is left out."""
    found: dict[tuple[str, str], Life] = {}
    misfits: list[tuple[str, str]] = []
    for change in history.changes:
        if change.subject != "job" or change.after["type"] == GO_TYPE:
            continue
        was, is_ = _live_claim(change.before), _live_claim(change.after)
        if was == is_:
            continue
        if was is not None:
            _end(found.get((change.id, was[0])), change, misfits)
        if is_ is not None:
            _begin(found, change, is_[0], misfits)
        if was is not None and is_ is not None:
            misfits.append((f"claim {was[0]} was replaced by {is_[0]} while it was valid", change.id))
    return Lives(found, tuple(misfits))


def _live_claim(row: Row) -> tuple[str, str] | None:
    if row["started_at"] is None or row["stopped_at"] is not None:
        return None
    return str(row["claim_id"]), row["started_at"]


def _begin(found: dict[tuple[str, str], Life], change: Change, claim: str, misfits: list[tuple[str, str]]) -> None:
    if change.before["stopped_at"] is not None:
        misfits.append((f"claim {claim} was made of a job that had stopped", change.id))
    if (change.id, claim) in found:
        misfits.append((f"claim {claim} was made twice", change.id))
    found[change.id, claim] = Life(job=change.id, claim=claim, type=change.after["type"], began_at=change.at)


def _end(life: Life | None, change: Change, misfits: list[tuple[str, str]]) -> None:
    if life is None or life.ending is not None:
        misfits.append((f"a claim ended that was never made, or had ended: {change.before['claim_id']}", change.id))
        return
    life.ended_at, life.ending, life.end = change.at, ending_of(change.before, change.after), change


def ending_of(before: Row, after: Row) -> Ending:
    """Tell how the claim of *before* ended, from what its row showed *after* that."""
    has_run = after["run_count"] == before["run_count"] + 1
    if after["stopped_at"] is not None:
        if after["cancelled_at"] is not None:
            return Ending.DISCARDED if has_run else Ending.CANCELLED
        if after["error_msg"] is None:
            return Ending.FINISHED
        return Ending.FAILED if has_run else Ending.GIVEN_UP
    if after["rescue_count"] == before["rescue_count"] + 1:
        return Ending.REAPED
    if has_run:
        return Ending.RETRIED if _run_of(after["last_failure"]) == after["run_count"] else Ending.SNOOZED
    return Ending.GIVEN_BACK


def _run_of(failure: Row | None) -> int | None:
    return None if failure is None else failure["run"]
