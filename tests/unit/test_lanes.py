"""Lanes: which threads take which jobs, and what is held for whom."""

import threading
from contextlib import closing
from datetime import timedelta

import pytest

import jobqueue
from jobqueue import InvalidJobError, JobContext, RegistrationError, Registry, WorkerPool, WorkerSettings, current_job
from jobqueue.outcomes import Outcome
from jobqueue.worker.lanes import demands_of, types_of_lane
from tests.fixtures.rig import LONG, Rig
from tests.fixtures.waiting import wait_until

SECOND = 1.0
SHORT = 1e-4


@pytest.fixture
def rigs():
    made = []

    def make(*desks, batch_size=1, demands=()):
        made.append(Rig(batch_size=batch_size, desks=desks, demands=demands))
        return made[-1]

    yield make
    for rig in made:
        rig.end()


@pytest.fixture
def service():
    settings = WorkerSettings(poll_interval=LONG, batch_size=64)
    with closing(jobqueue.connect("memory://", settings=settings, origin="tests")) as service:
        yield service


def atomic_registry():
    def work(ctx: JobContext) -> None: ...

    registry = Registry()
    for name in ("mail", "report:*", "slow"):
        registry.handler(name, atomic=True)(work)
    registry.register("plain", lambda *_: None)
    return registry


@pytest.mark.parametrize(
    ("lanes", "threads", "message"),
    [
        ({"mail": 4}, 4, "reserve 4 of 4 threads, but at least one.*start 5 threads or more"),
        ({"mail": 1, "report:*": 1}, 2, "reserve 2 of 2 threads"),
        ({"mail": 0}, 4, r"^lanes\['mail'\] must be 1 to"),
        ({"mail": True}, 4, r"^lanes\['mail'\] must be an int"),
        ({"a*": 1}, 4, "neither a job type"),
    ],
)
def test_lanes_that_are_none(service, lanes, threads, message):
    """Names, counts, and a thread that is left for everything, are checked when the pool is made."""
    with pytest.raises(ValueError, match=message):
        WorkerPool(service, Registry(), threads=threads, lanes=lanes)


def test_a_wrong_number_of_a_lane_is_of_the_lanes(service):
    """The error names what was passed to the pool."""
    with pytest.raises(InvalidJobError) as caught:
        WorkerPool(service, Registry(), lanes={"mail": 1.5})
    assert caught.value.field == "lanes"


@pytest.mark.parametrize("lanes", [["mail"], "mail", 2, []])
def test_lanes_are_a_mapping(service, lanes):
    """Anything else is refused at once, also what is empty."""
    with pytest.raises(TypeError, match="lanes must be a mapping such as"):
        WorkerPool(service, Registry(), lanes=lanes)


@pytest.mark.parametrize("threads", [1.5, "2", True, None])
def test_threads_are_counted(service, threads):
    """A number of threads that is no int is refused when the pool is made, not when it is started."""
    with pytest.raises(TypeError, match=f"threads must be an int, not {type(threads).__name__} "):
        WorkerPool(service, Registry(), threads=threads)


def test_a_lane_without_a_handler_is_refused(service):
    """Its threads would have nothing to do, ever; the pool can be used no worse afterwards."""
    registry = Registry()
    registry.register("other", lambda *_: None)
    with pytest.raises(RegistrationError, match="reserved for jobs of type 'mail', which has no handler"):
        WorkerPool(service, registry, lanes={"mail": 1}).start()
    registry.register("mail", lambda *_: None)


@pytest.mark.parametrize(
    ("lane", "registered", "types"),
    [
        ("mail", ["mail", "other"], ["mail"]),
        ("mail", ["*"], ["mail"]),
        ("mail:*", ["*"], ["mail:*"]),
        ("mail:*", ["mail:a", "mail:b:*", "other"], ["mail:a", "mail:b:*"]),
        ("mail:*", ["*", "mail:a"], ["mail:a", "mail:*"]),
        ("mail:a", ["mail:*"], ["mail:a"]),
        ("mail:*", ["mail:*"], ["mail:*"]),
        ("*", ["a", "b:*"], ["a", "b:*"]),
        ("mail:", ["mail:*", "mail:a"], ["mail:"]),
    ],
)
def test_what_a_lane_claims(lane, registered, types):
    """What it covers of what has a handler, and it itself where a pattern handles more than it covers."""
    registry = Registry()
    for name in registered:
        registry.register(name, lambda *_: None)
    assert list(types_of_lane(lane, registry)) == types


@pytest.mark.parametrize(
    ("lanes", "connections", "shares"),
    [
        ({}, 4, [4]),
        ({"plain": 3}, 4, [4, 0]),
        ({"mail": 2}, 4, [2, 2]),
        ({"mail": 5}, 4, [1, 3]),
        ({"mail": 5, "plain": 1, "report:*": 2}, 4, [1, 2, 0, 1]),
        ({"mail": 5, "report:*": 1}, 9, [3, 5, 1]),
        ({"mail": 5, "report:*": 2}, 3, [1, 1, 1]),
    ],
)
def test_connections_are_shared_out(lanes, connections, shares):
    """Each lane of atomic handlers has some that nobody else can take, and at least one is left for the others."""
    demands = demands_of(atomic_registry(), WorkerSettings(atomic_connections=connections), 10, lanes)
    assert [demand.connections.num_free for demand in demands] == shares


def test_too_few_connections_for_lanes(service):
    """A lane that could have no connection to itself is refused, with what to do, when the pool is started."""
    lanes = {"mail": 1, "report:*": 1}
    with pytest.raises(
        RegistrationError, match=r"atomic_connections is 2.*\('mail', 'report:\*'\).*set it to 3 or more"
    ):
        demands_of(atomic_registry(), WorkerSettings(atomic_connections=2), 10, lanes)
    with closing(jobqueue.connect("memory://", settings=WorkerSettings(atomic_connections=1), origin="tests")) as few:
        pool = WorkerPool(few, atomic_registry(), lanes={"mail": 1})
        with pytest.raises(RegistrationError, match="atomic_connections is 1"):
            pool.start()


def test_a_trip_of_a_lane_keeps_no_connection_from_others(rigs):
    """While a trip may bring as many atomic jobs as there are connections, a thread of another lane gets its job."""
    demands = demands_of(atomic_registry(), WorkerSettings(atomic_connections=3), 4, {"mail": 1, "report:*": 1})
    rig = rigs(batch_size=64, demands=demands)
    mail, report = rig.lanes
    mail.demand.note_duration(0.001)
    on_its_way = threading.Event()
    rig.store.gates.append(on_its_way)
    rig.ask(mail)
    wait_until(lambda: rig.store.travelling == 1)
    rig.add(type="report:day")
    asked = rig.ask(report)
    rig.dispatcher.ring("report:day")
    assert asked.result(5).type == "report:day"
    on_its_way.set()


def test_a_trip_asks_for_what_idle_threads_may_run(rigs):
    """With only threads of a lane idle, only its types are asked for; with others, everything, for themselves alone."""
    rig = rigs((("mail", "slow"), 2), (("mail",), 2))
    [lane] = rig.lanes
    rig.add(3, type="slow")
    reserved = rig.ask(lane)
    wait_until(lambda: lane.alarms)
    assert not reserved.done()
    taken = [rig.ask().result(5).type for _ in range(2)]
    assert taken == ["slow", "slow"]
    assert set(rig.store.asked_for) == {("mail",), ("mail", "slow")}
    assert max(rig.store.limits) == 1
    rig.add(type="mail")
    rig.dispatcher.ring("mail")
    assert reserved.result(5).type == "mail"


def test_what_is_held_for_a_lane_is_of_its_types(rigs):
    """Looking ahead, a thread of a lane holds jobs of the lane, and never starts what is held for others."""
    rig = rigs((("mail", "slow"), 1), (("mail",), 1), batch_size=64)
    [lane] = rig.lanes
    for desk in (rig.desk, lane):
        desk.demand.note_duration(0.001)
    rig.add(10, type="slow", priority=9)
    assert rig.ask().result(5).type == "slow"
    assert len(rig.desk.held) == 9
    rig.add(10, type="mail")
    rig.dispatcher.ring("mail")
    assert rig.ask(lane).result(5).type == "mail"
    assert len(lane.held) == 9
    assert {held.job.type for held in lane.held} == {"mail"}
    assert len(rig.dispatcher.kept_fences()) == 18


def test_all_that_is_held_is_handed_back(rigs):
    """When the pool closes, what is held at every desk is released, and what was held for too long before."""
    rig = rigs((("mail", "slow"), 1), (("mail",), 1), batch_size=64)
    [lane] = rig.lanes
    for desk in (rig.desk, lane):
        desk.demand.note_duration(0.001)
    rig.add(10, type="mail")
    assert rig.ask(lane).result(5).type == "mail"
    rig.add(10, type="slow")
    assert rig.ask().result(5).type == "slow"
    assert rig.dispatcher.hand_back(longer_than=1e-9) == 18
    assert (len(rig.desk.held), len(lane.held)) == (0, 0)


def test_a_ring_wakes_those_whom_it_concerns(rigs):
    """Threads of a lane do not look at the queue for jobs of other types."""
    rig = rigs((("mail", "slow"), 1), (("mail",), 1))
    [lane] = rig.lanes
    rig.ask(lane)
    wait_until(lambda: lane.alarms and not rig.dispatcher._trips)
    looks = len(rig.store.limits)
    rig.dispatcher.ring("slow")
    rig.ask_all(1)
    assert rig.store.asked_for[looks:] == [("mail", "slow")]
    rig.dispatcher.ring("mail")
    wait_until(lambda: rig.store.asked_for[looks + 1 :].count(("mail",)) == 1)


def test_a_lane_that_rings_while_all_trips_are_on_their_way_is_looked_for(rigs):
    """When one of them comes back, a thread of that lane makes the next trip, though nobody else has reason to."""
    rig = rigs((("a", "b", "c"), 1), (("a",), 1), (("b",), 1), (("c",), 1))
    first, second, third = rig.lanes
    asked = rig.ask(third)
    wait_until(lambda: third.alarms)
    on_their_way = [threading.Event(), threading.Event()]
    rig.store.gates.extend(on_their_way)
    for lane in (first, second):
        rig.ask(lane)
    wait_until(lambda: rig.store.travelling == 2)
    rig.add(type="c")
    rig.dispatcher.ring("c")
    wait_until(lambda: third.looks.due_at == 0 and third.alarms and not third._is_waking)
    on_their_way[0].set()
    assert asked.result(5).type == "c"
    on_their_way[1].set()


def test_a_lane_looks_for_what_others_have_put_off(rigs):
    """A job of its own that a thread without a lane has put off is taken when it is due, with that thread busy."""
    rig = rigs((("mail", "slow"), 1), (("mail",), 1))
    [lane] = rig.lanes
    [mail, slow] = [*rig.add(type="mail", priority=1), *rig.add(type="slow")]
    job = rig.ask().result(5)
    assert job.id == mail.id
    asked = rig.ask(lane)
    wait_until(lambda: lane.alarms)
    rig.dispatcher.hand_in(Outcome.snoozed(job, timedelta(seconds=0.2)), SHORT)
    assert rig.ask().result(5).id == slow.id
    assert asked.result(5).id == mail.id


def test_slow_jobs_leave_a_lane_alone(service):
    """While slow jobs have every other thread, those of the lane take its jobs, and no others."""
    registry, let_go, names = Registry(), threading.Event(), {}

    def slow(number: int) -> None:
        names.setdefault("slow", set()).add(threading.current_thread().name)
        assert let_go.wait(10)

    def mail(number: int) -> None:
        names.setdefault("mail", set()).add(threading.current_thread().name)

    registry.register_func_for_job_type("slow", slow)
    registry.register_func_for_job_type("mail", mail)
    pool = WorkerPool(service, registry, threads=4, lanes={"mail": 2})
    with pool:
        service.add_jobs([jobqueue.Job.new("slow", number) for number in range(20)])
        wait_until(lambda: len(names.get("slow", ())) == 2)
        for number in range(20):
            assert service.wait_for_job(service.enqueue("mail", number).id, 5).succeeded
        assert len(names["slow"]) == 2
        assert names["mail"].isdisjoint(names["slow"])
        let_go.set()
        service.add_jobs([jobqueue.Job.new("mail", number) for number in range(200)])
        wait_until(lambda: not service.get_all_jobs_to_do())
    assert len(names["slow"]) == 2


def test_start_threads_takes_lanes(service):
    """The function of the package hands them on."""
    with jobqueue.use_service(service), pytest.raises(ValueError, match="at least one has to be left"):
        jobqueue.start_threads(2, lanes={"mail": 2})


def test_outcomes_travel_with_whoever_is_there(service):
    """With one thread of a lane and one without, nobody polling, every outcome is saved soon."""
    registry = Registry()
    registry.register("mail", lambda *_: current_job().type)
    registry.register("slow", lambda *_: current_job().type)
    with WorkerPool(service, registry, threads=2, lanes={"mail": 1}):
        for number in range(30):
            kind = "mail" if number % 3 else "slow"
            assert service.wait_for_job(service.enqueue(kind, number).id, timedelta(seconds=5)).result == kind
