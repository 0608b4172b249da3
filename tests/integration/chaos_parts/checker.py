"""Holds what was promised against what has happened."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.integration.chaos_parts import (
    bundle_checks,
    claim_checks,
    job_checks,
    key_checks,
    pause_checks,
    retention_checks,
    schedule_checks,
)
from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import History

INVARIANTS: Final[Mapping[str, Callable[[History], Findings]]] = {
    "no committed enqueue is lost": job_checks.committed_are_there,
    "nothing that was rolled back exists or ran": job_checks.rolled_back_never_were,
    "a transaction of unknown fate is whole": job_checks.unknown_are_whole,
    "no job comes from nowhere": job_checks.nothing_from_nowhere,
    "every job is final": job_checks.every_job_is_final,
    "every job ended as planned": job_checks.every_job_ended_as_planned,
    "cancels were done as confirmed": job_checks.cancels_were_done,
    "claims of a job follow one another": claim_checks.claims_follow_one_another,
    "runs have a claim, and a claim one run": claim_checks.runs_have_claims,
    "valid runs of a job never overlap": claim_checks.valid_runs_never_overlap,
    "an outcome is of its own claim's run": claim_checks.outcomes_are_of_their_claim,
    "no claim is taken before its silence counts": claim_checks.silence_was_long_enough,
    "no job is given up before its limit": job_checks.no_job_is_given_up,
    "atomic effects are there exactly once": job_checks.atomic_effects_once,
    "a bundle is complete after all members, once": bundle_checks.completions_after_all_members,
    "one completion job per completion": bundle_checks.completion_jobs_once,
    "counters equal a recount": bundle_checks.counters_equal_a_recount,
    "a key is held by one job at a time": key_checks.one_at_a_time,
    "a key is held as long as its scope lasts": key_checks.as_long_as_its_scope,
    "duplicates are of those who hold the key": key_checks.duplicates_are_of_holders,
    "jobs with keys are there as told": key_checks.added_as_told,
    "nothing of a paused type is claimed": pause_checks.nothing_is_claimed,
    "each tick of a schedule is seen to once": schedule_checks.each_tick_once,
    "each tick has its job, each job its tick": schedule_checks.each_tick_its_job,
    "jobs of a schedule overlap only as allowed": schedule_checks.skipping_never_overlaps,
    "what retention took is in the archive": retention_checks.taken_are_archived,
    "what retention took was old enough": retention_checks.taken_were_old_enough,
    "retention takes bundles whole": retention_checks.bundles_go_whole,
    "nothing is left running": job_checks.nothing_is_running,
}


def check(history: History) -> dict[str, Findings]:
    """Check all invariants."""
    return {name: invariant(history) for name, invariant in INVARIANTS.items()}
