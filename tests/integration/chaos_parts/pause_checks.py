"""What must be true of types that are paused, by a person or by a failure that had all processes back off."""

from collections.abc import Iterator
from datetime import datetime
from math import inf

import attrs

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import Change, History, Row
from tests.integration.chaos_parts.plan import GO_TYPE

# From the moment that a commit shows until others see what was committed, on a machine that has more to do.
_BLUR = 0.25
_SUBJECTS = ("paused_type insert", "paused_type", "paused_type delete")


@attrs.frozen(kw_only=True)
class Pause:
    """That a type, or a pattern of types, was paused, by one row as one change has left it."""

    pattern: str
    since: float
    until: float
    is_back_off: bool

    def covers(self, type: str) -> bool:
        """Whether it is for jobs of that type."""
        return type.startswith(self.pattern[:-1]) if self.pattern.endswith("*") else type == self.pattern

    def forbids(self, claim: Change) -> bool:
        """Whether the statement that has made *claim* saw it, and nothing that ends it."""
        return self.since + _BLUR < claim.began and claim.wall < self.until and self.covers(claim.after["type"])


def nothing_is_claimed(history: History) -> Findings:
    """No job is claimed by a statement that began when its type was paused already, and ended when it still was."""
    findings = Findings()
    pauses = pauses_of(history)
    for claim in history.changes_of("job"):
        if _is_claim(claim):
            broken = [pause for pause in pauses if pause.forbids(claim)]
            problem = f"claim {claim.after['claim_id']} was made at {claim.wall:.3f} in spite of {broken}"
            findings.look(not broken, problem, claim.id)
    return findings


def pauses_of(history: History) -> list[Pause]:
    """Return the pauses that there were, as those who began to claim after them could see them."""
    return list(_pauses(history))


def _pauses(history: History) -> Iterator[Pause]:
    open_: dict[str, Change] = {}
    for change in history.changes_of(*_SUBJECTS):
        if (before := open_.pop(change.id, None)) is not None:
            yield _pause(before, change.wall)
        if change.subject != "paused_type delete":
            open_[change.id] = change
    for change in open_.values():
        yield _pause(change, inf)


def _pause(change: Change, next_at: float) -> Pause:
    until = change.after["until"]
    by_itself = inf if until is None else datetime.fromisoformat(until).timestamp()
    is_back_off = change.after["back_off"] is not None
    return Pause(pattern=change.id, since=change.committed, until=min(by_itself, next_at), is_back_off=is_back_off)


def _is_claim(change: Change) -> bool:
    return _is_running(change.after) and not _is_running(change.before) and change.after["type"] != GO_TYPE


def _is_running(row: Row) -> bool:
    return row["started_at"] is not None and row["stopped_at"] is None
