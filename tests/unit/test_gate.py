"""Gates: what is asked, when, and what becomes of jobs whose gate is closed."""

import threading
import time
from collections import Counter
from contextlib import closing

import pytest

import jobqueue
from jobqueue import Registry, State, WorkerPool, WorkerSettings
from jobqueue.errors import UnavailableError
from jobqueue.health import Health
from jobqueue.outcomes import Outcome
from jobqueue.worker.gate import Gate
from tests.fixtures.rig import LONG, Rig
from tests.fixtures.waiting import wait_until

SECONDS_CLOSED = 0.1


class Doors:
    """A gate's function: what is closed, and what was asked."""

    def __init__(self, *closed: str) -> None:
        self.closed = set(closed)
        self.asked = Counter[str]()
        self.error: BaseException | None = None
        self.threads = set[str]()

    def __call__(self, name: str) -> bool:
        self.asked[name] += 1
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return name not in self.closed


@pytest.fixture
def service():
    settings = WorkerSettings(poll_interval=LONG, batch_size=1)
    with closing(jobqueue.connect("memory://", settings=settings, origin="tests")) as service:
        yield service


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def ran(registry):
    """The types of the runs of all jobs."""
    ran = []
    for name in ("mail", "report:*", "*"):
        registry.register(name, lambda _, job: ran.append(job.type))
    return ran


def gated_rig(doors, *types):
    rig = Rig(desks=[(types, 1)])
    rig.dispatcher.set_gate(Gate(doors, types, Health().vital("gate")))
    return rig


@pytest.fixture
def rigs():
    made = []

    def make(doors, *types):
        made.append(gated_rig(doors, *types))
        return made[-1]

    yield make
    for rig in made:
        rig.end()


def test_what_is_closed_is_not_asked_for(rigs):
    """A trip asks for the types whose gates are open, and the gate is asked about each before each claim."""
    doors = Doors("mail")
    rig = rigs(doors, "mail", "report")
    rig.add(type="mail")
    rig.add(3, type="report")
    assert [rig.ask().result(5).type for _ in range(3)] == ["report"] * 3
    assert rig.store.asked_for == [("report",)] * 3
    assert doors.asked["report"] == 3


def test_when_all_is_closed_nothing_travels(rigs):
    """Idle workers ask the gate about every 100 ms, and the database only when a gate has opened."""
    doors = Doors("mail", "report")
    rig = rigs(doors, "mail", "report")
    [job] = rig.add(type="mail")
    asked = [rig.ask() for _ in range(3)]
    began = time.monotonic()
    wait_until(lambda: doors.asked["mail"] >= 4)
    assert time.monotonic() - began > 2.5 * SECONDS_CLOSED
    assert rig.store.limits == []
    used = time.process_time()
    wait_until(lambda: doors.asked["mail"] >= 9)
    assert time.process_time() - used < 0.2
    doors.closed.remove("mail")
    wait_until(lambda: any(future.done() for future in asked))
    assert [future.result().id for future in asked if future.done()] == [job.id]
    assert rig.store.asked_for[0] == ("mail",)


def test_a_slow_gate_holds_up_claims_and_no_outcomes(rigs):
    """While the gate is asked, what was handed in travels, and nothing is claimed."""
    doors, answer = Doors(), threading.Event()
    rig = rigs(doors, "t")
    first, second = rig.add(2)
    job = rig.ask().result(5)
    rig.dispatcher.set_gate(Gate(lambda _: answer.wait(10), ["t"], Health().vital("gate")))
    asked = rig.ask()
    wait_until(lambda: rig.dispatcher._gate is not None and rig.dispatcher._gate.is_being_asked)
    rig.dispatcher.hand_in(Outcome.finished(job), 1e-6)
    rig.dispatcher.carry_overdue(longer_than=0)
    assert [outcome.fence.job_id for outcome in rig.store.saved] == [first.id]
    assert rig.store.limits == [1, 0]
    assert rig.dispatcher._gate.is_being_asked
    other = rig.ask()
    wait_until(lambda: rig.desk.idle == 2)
    answer.set()
    wait_until(lambda: asked.done() or other.done())
    assert (asked if asked.done() else other).result().id == second.id


def test_a_pool_that_closes_does_not_wait_for_its_gate(rigs, monkeypatch):
    """While the database does not take the last outcomes, workers sleep until the next try, whatever is closed."""
    doors = Doors("t")
    rig = rigs(doors, "t")
    rig.dispatcher.set_gate(None)
    rig.add()
    job = rig.ask().result(5)
    rig.dispatcher.set_gate(Gate(doors, ["t"], Health().vital("gate")))
    asked = [rig.ask(), rig.ask()]
    wait_until(lambda: len(rig.desk.alarms) == 2 and doors.asked["t"] >= 2)
    waits, wait = [], rig.desk.wait_until
    monkeypatch.setattr(rig.desk, "wait_until", lambda alarm, now: waits.append(alarm - now) or wait(alarm, now))
    rig.store.failures.extend([UnavailableError("away")] * 3)
    rig.dispatcher.close()
    rig.dispatcher.hand_in(Outcome.finished(job), 1e-6)
    assert [future.result(20) for future in asked] == [None, None]
    assert min(waits) > 0
    assert len(waits) < 50


def test_a_pool_obeys_its_gate(service, registry, ran):
    """Set before the start or while it runs: what is closed waits at no cost, and runs when the gate opens, or goes."""
    doors = Doors("mail", "report:*")
    pool = WorkerPool(service, registry, threads=2)
    pool.set_gate(doors)
    with pool:
        mail, report, _ = (service.enqueue(name, 1) for name in ("mail", "report:day", "other"))
        wait_until(lambda: ran == ["other"])
        doors.closed.remove("mail")
        wait_until(lambda: ran == ["other", "mail"])
        assert service.get_job(report.id).state is State.AVAILABLE
        pool.set_gate(None)
        wait_until(lambda: ran == ["other", "mail", "report:day"])
        pool.set_gate(lambda _: False)
        last = service.enqueue("mail", 2)
        assert not threading.Event().wait(0.3)
        assert service.get_job(last.id).state is State.AVAILABLE
    assert {service.get_job(job.id).run_count for job in (mail, report)} == {1}
    assert all(name.startswith("jobqueue-worker-") for name in doors.threads)


def test_types_of_a_pattern_are_asked_about_at_their_start(service, registry, ran):
    """A job whose type came by a pattern is given back at no cost, and no other of that type claimed for 100 ms."""
    doors = Doors("report:day", "stranger")
    pool = WorkerPool(service, registry, threads=2)
    pool.set_gate(doors)
    jobs = [service.enqueue("report:day", number, max_retry_count=1) for number in range(3)]
    jobs.append(service.enqueue("stranger", 1))
    with pool:
        service.enqueue("report:week", 1)
        wait_until(lambda: ran == ["report:week"])
        wait_until(lambda: doors.asked["report:day"] >= 8)
        now = [service.get_job(job.id) for job in jobs]
        assert [(job.state, job.run_count, job.rescue_count, job.current_retry_count) for job in now] == [
            (State.AVAILABLE, 0, 0, 0)
        ] * 4
        assert ran == ["report:week"]
        doors.closed.clear()
        wait_until(lambda: sorted(ran) == [*["report:day"] * 3, "report:week", "stranger"])
    assert {service.get_job(job.id).run_count for job in jobs} == {1}


def test_what_is_known_to_be_closed_is_claimed_no_more(rigs):
    """After a job was given back because of its type, trips leave that type out of what its pattern stands for."""
    doors = Doors("report:day")
    rig = rigs(doors, "report:*")
    rig.add(type="report:day")
    job = rig.ask().result(5)
    assert not rig.dispatcher.admits(job)
    asked = rig.ask()
    wait_until(lambda: [outcome.kind for outcome in rig.store.saved] == ["released"])
    wait_until(lambda: doors.asked["report:day"] >= 4)
    assert all(row.run_count == 0 and not row.started for row in rig.store.jobs.values())
    assert not asked.done()
    doors.closed.clear()
    assert asked.result(5).id == job.id


def test_an_error_counts_as_closed(service, registry, ran, caplog):
    """It is told and logged once, until the gate answers again, and ends no thread."""
    errors = []
    service.set_on_error(errors.append)
    doors = Doors()
    doors.error = SystemExit("no")
    pool = WorkerPool(service, registry, threads=1)
    pool.set_gate(doors)
    with pool:
        service.enqueue("mail", 1)
        wait_until(lambda: doors.asked["mail"] >= 3)
        assert (ran, errors) == ([], [doors.error])
        assert service.health()["parts"]["gate"]["state"] == "down"
        doors.error = None
        wait_until(lambda: ran == ["mail"])
    lines = [record.getMessage() for record in caplog.records if "gate" in record.getMessage()]
    assert [line.partition(" on ")[0] for line in lines] == ["the gate failed", "the gate answers again"]
    assert service.health()["parts"]["gate"]["state"] == "up"


def test_only_what_can_be_called_is_a_gate(service):
    """Anything else is refused when it is set."""
    with pytest.raises(TypeError, match="a gate must be callable"):
        WorkerPool(service).set_gate(True)


def test_few_types_are_learnt():
    """However many types a closed pattern brings, a thousand are left out at most: the newest."""
    gate = Gate(lambda _: False, ["*"], Health().vital("gate"))
    for number in range(1100):
        gate.close(f"t{number}")
    assert len(gate.closed) == 1000
    assert {"t100", "t1099"} <= gate.closed
