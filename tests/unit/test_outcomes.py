"""Outcomes: what they make of a job."""

from jobqueue.outcomes import OutcomeKind


def test_what_ends_a_job():
    """Success, failure and discarding stop a job; after a retry, a snooze or a release it runs again."""
    assert [kind for kind in OutcomeKind if kind.stops] == [
        OutcomeKind.FINISHED,
        OutcomeKind.FAILED,
        OutcomeKind.DISCARDED,
    ]
