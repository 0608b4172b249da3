"""What a pool asks for: all types while connections of atomic handlers are free, and then the others."""

from datetime import UTC, datetime
from uuid import uuid4

import attrs
import pytest

from jobqueue.models import Job
from jobqueue.settings import WorkerSettings
from jobqueue.worker.demand import Demand


def demand_for(*types, atomic=(), connections=2, batch_size=1, num_workers=1):
    settings = WorkerSettings(atomic_connections=connections, batch_size=batch_size)
    return Demand(types, lambda name: name in atomic, settings, num_workers=num_workers)


def claimed(job_type):
    return attrs.evolve(Job.new(job_type, 1), started_at=datetime.now(UTC), claim_id=uuid4())


def asked(request):
    return request.types, request.limit, request.num_reserved, request.sees_all


def test_without_atomic_handlers_nothing_is_held_back():
    """All that is wanted is asked for, of all types."""
    demand = demand_for("a", "b:*")
    assert demand.limit(100) == 100
    request = demand.ask(100)
    assert asked(request) == (("a", "b:*"), 100, 0, True)
    assert demand.receive(request, [claimed("a")]) == 0
    assert demand.limit(100) == 100


def test_atomic_jobs_are_asked_for_as_far_as_connections_are_free():
    """What trips may bring, and what they have brought, takes connections; other types are asked for without them."""
    demand = demand_for("atomic", "plain", atomic={"atomic"}, connections=3)
    assert demand.limit(100) == 3
    first = demand.ask(2)
    assert (first.types, demand.limit(100)) == (("atomic", "plain"), 1)
    second = demand.ask(1)
    assert demand.limit(100) == 100
    third = demand.ask(100)
    assert asked(third) == (("plain",), 100, 0, True)
    job = claimed("atomic")
    demand.receive(first, [job, claimed("plain")])
    demand.receive(second, [])
    demand.receive(third, [claimed("plain")])
    assert demand.limit(100) == 2
    assert [demand.connections.give_back(job.fence), demand.connections.give_back(job.fence)] == [1, 0]
    assert demand.limit(100) == 3


def test_a_job_that_was_claimed_twice_takes_two_connections():
    """The first claim was lost, and its handler still runs: when that ends, the second one keeps its connection."""
    demand = demand_for("atomic", atomic={"atomic"}, connections=2)
    first = claimed("atomic")
    second = attrs.evolve(first, claim_id=uuid4())
    for job in (first, second):
        demand.receive(demand.ask(1), [job])
    assert demand.limit(1) == 0
    demand.connections.give_back(first.fence)
    assert demand.limit(2) == 1


def test_a_pool_with_nothing_but_atomic_handlers_asks_for_nothing_while_all_connections_are_taken():
    """Then a trip would bring what cannot run."""
    demand = demand_for("atomic", atomic={"atomic"}, connections=1)
    request = demand.ask(demand.limit(5))
    job = claimed("atomic")
    demand.receive(request, [job])
    assert demand.limit(5) == 0
    demand.connections.give_back(job.fence)
    assert demand.limit(5) == 1


def test_a_pattern_that_an_atomic_type_matches_waits_with_it():
    """Asked for alone, it would bring jobs of that type, too."""
    demand = demand_for("*", "report:*", "report:big", "mail", atomic={"report:big"}, connections=1)
    demand.receive(demand.ask(1), [claimed("report:big")])
    assert demand.ask(demand.limit(5)).types == ("mail",)


def test_where_no_atomic_job_waits_the_others_travel_in_full_parties():
    """After a trip that was full of others, some ask for others only, as many as are wanted; then for all again."""
    demand = demand_for("atomic", "plain", atomic={"atomic"}, connections=2)
    for _ in range(2):
        request = demand.ask(demand.limit(64))
        assert asked(request) == (("atomic", "plain"), 2, 2, True)
        demand.receive(request, [claimed("plain")] * 2)
        for _ in range(4):
            assert demand.limit(64) == 64
            request = demand.ask(64)
            assert asked(request) == (("plain",), 64, 0, False)
            assert demand.receive(request, [claimed("plain")] * 64) == 0


def test_when_the_others_run_out_all_are_asked_for_again():
    """A trip for others only that comes back short does not say that nothing waits: there is to be a look at all."""
    demand = demand_for("atomic", "plain", atomic={"atomic"}, connections=2)
    demand.receive(demand.ask(2), [claimed("plain")] * 2)
    assert demand.receive(demand.ask(64), [claimed("plain")] * 3) == 1
    assert asked(demand.ask(demand.limit(64))) == (("atomic", "plain"), 2, 2, True)


def test_atomic_jobs_that_wait_are_not_passed_over():
    """As long as trips bring some of them, all types are asked for each time."""
    demand = demand_for("atomic", "plain", atomic={"atomic"}, connections=4)
    for _ in range(5):
        jobs = [claimed("atomic"), *[claimed("plain")] * 3]
        demand.receive(demand.ask(demand.limit(64)), jobs)
        assert demand.limit(64) == 3
        demand.connections.give_back(jobs[0].fence)


def test_a_connection_that_was_kept_in_vain_is_a_reason_to_look():
    """What rang while it was kept was heeded by a trip that could not ask for atomic jobs."""
    demand = demand_for("atomic", "plain", atomic={"atomic"}, connections=1)
    first = demand.ask(1)
    second = demand.ask(1)
    assert demand.receive(second, []) == 0
    assert demand.receive(first, []) == 1
    assert demand.receive(demand.ask(1), []) == 0


def test_more_is_held_ahead_the_shorter_jobs_are():
    """About 20 ms of work, within the batch size; nothing before the first job has ended."""
    demand = demand_for("a", batch_size=8)
    assert demand.ahead == 0
    demand.note_duration(0.005)
    assert demand.ahead == 4
    for _ in range(100):
        demand.note_duration(0.0001)
    assert demand.ahead == 7
    for _ in range(100):
        demand.note_duration(1.0)
    assert demand.ahead == 0
    strict = demand_for("a", batch_size=1)
    strict.note_duration(0.0001)
    assert strict.ahead == 0


@pytest.mark.parametrize(("seconds", "ahead"), [(0.021, 0), (0.02, 8), (0.006, 24), (0.001, 63)])
def test_each_worker_has_work_ahead(seconds, ahead):
    """It is 20 ms of work for each worker, so that many need not wait for trips that bring work for one."""
    demand = demand_for("a", batch_size=64, num_workers=8)
    demand.note_duration(seconds)
    assert demand.ahead == ahead


def test_a_few_long_jobs_do_not_count_for_all():
    """What most jobs take decides: a thread that waits for a processor makes any job look long."""
    demand = demand_for("a", batch_size=64)
    for number in range(100):
        demand.note_duration(0.01 if number % 10 == 0 else 0.00005)
    assert demand.ahead == 63
