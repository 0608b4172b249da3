"""What must be true of what retention takes out of the queue, and of the archive."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from math import inf

from tests.integration.chaos_parts.findings import Findings, is_final
from tests.integration.chaos_parts.history import History, Row
from tests.integration.chaos_parts.plan import age_of

_MOVED = ("type", "bundle_id", "started_at", "stopped_at", "cancelled_at", "error_msg", "run_count", "rescue_count")
# Ages are counted by moments of one clock, and to the microsecond.
_EXACTLY = 0.000_001


def taken_are_archived(history: History) -> Findings:
    """What was taken out of the queue is in the archive, as it was; and what is in the archive was taken out, once."""
    findings = Findings()
    taken = {change.id: change.before for change in history.changes_of("job delete")}
    for id_, before in taken.items():
        row = history.archive.get(id_)
        problem = f"it was taken out of the queue as {_shown(before)}, and is in the archive as {row and _shown(row)}"
        findings.look(row is not None and _shown(row) == _shown(before), problem, id_)
    for id_ in history.archive:
        findings.look(id_ in taken, "it is in the archive, and was not taken out of the queue", id_)
        findings.look(id_ not in history.queue, "it is in the archive and in the queue", id_)
    return findings


def taken_were_old_enough(history: History) -> Findings:
    """What was taken out of the queue had ended as long ago as retention wants; and so had the bundles of members."""
    findings = Findings()
    ended_at = {change.id: _moment(change.before, "stopped_at") for change in history.changes_of("job_bundle delete")}
    for change in history.changes_of("job delete"):
        findings.look(is_final(change.before), "it was taken out of the queue before its end", change.id)
        bundle = change.before["bundle_id"]
        stopped_at = max(_moment(change.before, "stopped_at"), -inf if bundle is None else ended_at.get(bundle, inf))
        age, wanted = change.began - stopped_at, age_of(change.before).total_seconds()
        findings.look(age >= wanted - _EXACTLY, f"it was taken out after {age:.3f} s, and not {wanted} s", change.id)
    return findings


def bundles_go_whole(history: History) -> Findings:
    """Members are taken out with their bundle, all of them, when it is complete and its completion job has stopped."""
    findings = Findings()
    members: dict[str, list[int]] = defaultdict(list)
    for change in history.changes_of("job delete"):
        if change.before["bundle_id"] is not None:
            members[change.before["bundle_id"]].append(change.transaction)
    gone = {change.id: change for change in history.changes_of("job_bundle delete")}
    for id_ in members.keys() - gone.keys():
        findings.look(False, f"{len(members[id_])} of its members were taken out of the queue without it", id_)
    for id_, change in gone.items():
        together = members[id_].count(change.transaction)
        whole = together == len(members[id_]) == change.before["num_jobs"]
        problem = f"it had {change.before['num_jobs']} members, of which {together} were taken out with it"
        findings.look(whole, problem, id_)
        findings.look(change.before["stopped_at"] is not None, "it was taken out before it was complete", id_)
    for id_ in _taken_before_completion_jobs(history):
        findings.look(False, "it was taken out before its completion job had stopped", id_)
    return findings


def _taken_before_completion_jobs(history: History) -> Iterator[str]:
    open_ = {id_: str(job["completes_bundle_id"]) for id_, job in history.jobs.items() if job["completes_bundle_id"]}
    for change in history.changes_of("job", "job_bundle delete"):
        if change.subject == "job_bundle delete" and change.id in open_.values():
            yield change.id
        elif change.subject == "job" and change.after["stopped_at"] is not None:
            open_.pop(change.id, None)


def _moment(row: Row, name: str) -> float:
    return datetime.fromisoformat(row[name]).timestamp() if row[name] is not None else inf


def _shown(row: Row) -> dict[str, str]:
    """Return what must not be lost on the way, spelt alike for rows that come as JSON and others."""
    return {name: _spelt(row[name]) for name in _MOVED}


def _spelt(value: object) -> str:
    if isinstance(value, datetime):
        return str(value.timestamp())
    try:
        return str(datetime.fromisoformat(str(value)).timestamp())
    except ValueError:
        return str(value)
