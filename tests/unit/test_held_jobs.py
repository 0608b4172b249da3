"""Jobs that are held, while signal handlers interrupt whoever takes some of them."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any
from uuid import uuid4

import attrs
import pytest

from jobqueue import Job
from jobqueue.worker.held_jobs import HeldJobs

_LOOKS: dict[str, Callable[[HeldJobs], object]] = {
    "all but none": lambda held: held.take_all_but(0),
    "late ones": lambda held: held.take_late(0.0),
    "of types": lambda held: held.take_types({"b"}),
    "lost ones": lambda held: held.drop(()),
    "fences": HeldJobs.fences,
}


def of_types(*types: str) -> HeldJobs:
    held = HeldJobs()
    now = datetime.now(UTC)
    held.add([attrs.evolve(Job.new(type, {}), started_at=now, claim_id=uuid4()) for type in types], 0.0)
    return held


def interrupted(look: Callable[[HeldJobs], object], held: HeldJobs, at: int) -> bool:
    """Take all that is *held* before the instruction *at* of what *look* does; return whether it came to that."""
    num_seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal num_seen
        if not frame.f_code.co_filename.endswith("held_jobs.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            num_seen += 1
            if num_seen == at:
                sys.settrace(None)
                held.take_all_but(0)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        look(held)
    finally:
        sys.settrace(before)
    return num_seen >= at


@pytest.mark.parametrize("look", _LOOKS.values(), ids=_LOOKS)
def test_may_be_interrupted_by_who_takes_all(look: Callable[[HeldJobs], object]):
    at = 1
    while interrupted(look, of_types("a", "b", "c"), at):
        at += 1
    assert 10 < at < 1000


def test_what_is_taken_comes_in_order():
    held = of_types("a", "b", "c", "b")
    assert [each.job.type for each in held.take_types({"b"})] == ["b", "b"]
    assert [each.job.type for each in held.take_all_but(1)] == ["c"]
    assert [each.job.type for each in held] == ["a"]
    assert held.take_all_but(2) == []
    assert held.take().type == "a"
