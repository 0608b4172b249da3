"""What a pool asks for: all types while connections of atomic handlers are free, and then the others."""

from jobqueue.models import Job
from jobqueue.settings import WorkerSettings
from jobqueue.worker.demand import Demand


def demand_for(*types, atomic=(), connections=2, batch_size=1):
    settings = WorkerSettings(atomic_connections=connections, batch_size=batch_size)
    return Demand(types, lambda name: name in atomic, settings)


def test_without_atomic_handlers_nothing_is_held_back():
    """All that is wanted is asked for, of all types."""
    demand = demand_for("a", "b:*")
    assert demand.limit(100) == 100
    request = demand.ask(100)
    assert (request.types, request.limit, request.num_reserved) == (("a", "b:*"), 100, 0)
    demand.receive(request, [Job.new("a", 1)])
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
    assert (third.types, third.num_reserved) == (("plain",), 0)
    job = Job.new("atomic", 1)
    demand.receive(first, [job, Job.new("plain", 1)])
    demand.receive(second, [])
    demand.receive(third, [Job.new("plain", 1)])
    assert demand.limit(100) == 2
    assert [demand.give_back(job.id), demand.give_back(job.id)] == [1, 0]
    assert demand.limit(100) == 3


def test_a_pool_with_nothing_but_atomic_handlers_asks_for_nothing_while_all_connections_are_taken():
    """Then a trip would bring what cannot run."""
    demand = demand_for("atomic", atomic={"atomic"}, connections=1)
    request = demand.ask(demand.limit(5))
    job = Job.new("atomic", 1)
    demand.receive(request, [job])
    assert demand.limit(5) == 0
    demand.give_back(job.id)
    assert demand.limit(5) == 1


def test_a_pattern_that_an_atomic_type_matches_waits_with_it():
    """Asked for alone, it would bring jobs of that type, too."""
    demand = demand_for("*", "report:*", "report:big", "mail", atomic={"report:big"}, connections=1)
    demand.receive(demand.ask(1), [Job.new("report:big", 1)])
    assert demand.ask(demand.limit(5)).types == ("mail",)


def test_more_is_held_ahead_the_shorter_jobs_are():
    """About 20 ms of work, within the batch size; nothing before the first job has ended."""
    demand = demand_for("a", batch_size=8)
    assert demand.ahead() == 0
    demand.note_duration(0.005)
    assert demand.ahead() == 4
    for _ in range(100):
        demand.note_duration(0.0001)
    assert demand.ahead() == 7
    for _ in range(100):
        demand.note_duration(1.0)
    assert demand.ahead() == 0
    strict = demand_for("a", batch_size=1)
    strict.note_duration(0.0001)
    assert strict.ahead() == 0
