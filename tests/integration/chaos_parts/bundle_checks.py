"""What must be true of bundles."""

from collections import Counter, defaultdict

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import Change, History


def completions_after_all_members(history: History) -> Findings:
    """A bundle is marked as stopped once each time that its last member stops, and not before; a reset unmarks it."""
    findings = Findings()
    members = _members(history)
    stopped = set[str]()
    for change in sorted(history.changes_of("job", "job_bundle"), key=lambda change: change.seq):
        if change.subject == "job":
            (stopped.discard if change.after["stopped_at"] is None else stopped.add)(change.id)
        elif _completes(change):
            left = len(members[change.id] - stopped)
            findings.look(left == 0, f"it was complete while {left} members had not stopped", change.id)
            marked = change.before["stopped_at"] is None and change.after["stopped_at"] is not None
            findings.look(marked, "it was complete, and not marked so just then", change.id)
        else:
            open_again = change.after["stopped_at"] is None
            findings.look(open_again, "it is marked as stopped by something else than its last member", change.id)
    return findings


def completion_jobs_once(history: History) -> Findings:
    """There is one completion job for each completion of a bundle that asked for it."""
    findings = Findings()
    completions = Counter(change.id for change in history.changes if _completes(change))
    jobs = Counter(str(job["completes_bundle_id"]) for job in history.jobs.values() if job["completes_bundle_id"])
    for id_ in set(history.bundles) | set(jobs):
        asked = id_ in history.bundles and history.bundles[id_]["on_stopped"] is not None
        wanted = completions[id_] if asked else 0
        findings.look(jobs[id_] == wanted, f"{jobs[id_]} completion jobs for {wanted} completions", id_)
    return findings


def counters_equal_a_recount(history: History) -> Findings:
    """The counters of each bundle are what counting its members gives."""
    findings = Findings()
    members = _members(history)
    for id_, bundle in history.bundles.items():
        stopped = sum(history.jobs[job]["stopped_at"] is not None for job in members[id_])
        counted = (len(members[id_]), stopped)
        shown = (bundle["num_jobs"], bundle["num_jobs_stopped"])
        findings.look(counted == shown, f"it shows {shown} jobs and stopped jobs, and has {counted}", id_)
    return findings


def _members(history: History) -> dict[str, set[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for id_, job in history.jobs.items():
        if job["bundle_id"] is not None:
            members[str(job["bundle_id"])].add(id_)
    return members


def _completes(change: Change) -> bool:
    return (
        change.subject == "job_bundle"
        and change.before["num_jobs_stopped"] < change.before["num_jobs"]
        and change.after["num_jobs_stopped"] == change.after["num_jobs"]
    )
