"""Where the modes for tests hold: blocks within blocks, threads, tasks, copied contexts, and without a service."""

import asyncio
import threading
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from itertools import permutations

import pytest

import jobqueue
from jobqueue import Job, JobBundle, JobDesc, NotInitializedError, Registry, WorkerPool, context
from jobqueue.middleware import AddMiddleware, adding_through
from jobqueue.testing import ignore_job_bundles, ignore_jobs, synchronous_jobs
from tests.fixtures.waiting import wait_until


@pytest.fixture(autouse=True)
def no_default_service(monkeypatch):
    monkeypatch.setattr(context, "_default", None)


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def ran(registry):
    """The types of the jobs that were run."""
    types: list[str] = []
    registry.register("*", lambda ctx, job: types.append(job.type))
    return types


@pytest.fixture
def service():
    """A service on a queue in memory, which is the current one."""
    with jobqueue.connect("memory://", origin="tests") as service, jobqueue.use_service(service):
        yield service


def kept(service):
    """Name the types of the jobs that are stored, and forget them."""
    types = sorted(job.type for job in service.get_all_jobs_to_do())
    service.delete_all_jobs_and_bundles()
    return types


def fate_of_a_job(service, ran):
    """Add a job, and say what was done with it."""
    ran.clear()
    jobqueue.enqueue("t", 1)
    return "run" if ran else "stored" if kept(service) else "ignored"


# --- blocks within blocks


@pytest.mark.parametrize("order", [*permutations(["all", "type", "run"])], ids=" > ".join)
def test_whatever_is_ignored_is_not_run(service, registry, ran, order):
    """In whichever order blocks are nested, what one of them ignores is neither run nor stored; the rest is run."""
    blocks = {
        "all": lambda: ignore_jobs(predicate=lambda job: job.payload == "ignore"),
        "type": lambda: ignore_jobs("ignored"),
        "run": lambda: synchronous_jobs(registry),
    }
    with ExitStack() as stack:
        listed = {name: stack.enter_context(blocks[name]()) for name in order}
        jobqueue.add_jobs([Job.new("run", 1), Job.new("ignored", 2), Job.new("t", "ignore"), Job.new("run", 3)])
        jobqueue.enqueue("ignored", 4)
    assert ran == ["run", "run"]
    assert kept(service) == []
    assert [job.payload for job in listed["type"]] == [2, 4]
    assert [job.payload for job in listed["all"]] == ["ignore"]


@pytest.mark.parametrize("order", [*permutations(["ignore", "run"])], ids=" > ".join)
def test_whatever_bundle_is_ignored_is_not_run(service, registry, ran, order):
    """That holds for bundles, too; a bundle that is run is run whole, whatever jobs are ignored."""
    blocks = {"ignore": lambda: ignore_job_bundles("ignored"), "run": lambda: synchronous_jobs(registry)}
    with ExitStack() as stack:
        stack.enter_context(ignore_jobs())
        for name in order:
            stack.enter_context(blocks[name]())
        for type in ("ignored", "run"):
            jobqueue.add_bundle(JobBundle.new(type, [JobDesc(1, type=type)], on_stopped=JobDesc(2, type="after")))
    assert ran == ["run", "after"]
    assert kept(service) == []


def test_the_inner_one_of_two_that_run_counts(service, registry, ran):
    """Of two blocks that run jobs, the inner one has the say over which handlers do it."""
    with synchronous_jobs(Registry()), synchronous_jobs(registry):
        assert fate_of_a_job(service, ran) == "run"


def test_the_inner_one_of_two_that_ignore_is_asked_first(service):
    """A job is listed by the innermost block that ignores it, and by no other."""
    with ignore_jobs() as outer, ignore_jobs("t") as inner:
        jobqueue.enqueue("t", 1)
        jobqueue.enqueue("u", 2)
    assert ([job.payload for job in outer], [job.payload for job in inner]) == ([2], [1])


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_what_was_before_comes_back(service, registry, ran, error):
    """After a block it is as it was before it, however the block has ended."""

    @contextmanager
    def ending(block):
        try:
            with block:
                yield
                if error:
                    raise error
        except (KeyError, KeyboardInterrupt) as raised:
            assert type(raised) is error  # noqa: PT017 - it is what ends the block

    with ending(synchronous_jobs(registry)):
        assert fate_of_a_job(service, ran) == "run"
        with ending(ignore_jobs()):
            assert fate_of_a_job(service, ran) == "ignored"
            with ending(synchronous_jobs(registry)):
                assert fate_of_a_job(service, ran) == "ignored"
        assert fate_of_a_job(service, ran) == "run"
    assert fate_of_a_job(service, ran) == "stored"


def test_middleware_of_an_application(service, registry, ran):
    """Middleware sees what is added, may change it, and passes on what it lets through; the outermost comes first."""

    class Mark(AddMiddleware):
        def __init__(self, name):
            self.name = name

        def add_job(self, service, job, add):
            return add(Job.new(job.type, [*job.payload, self.name], origin=job.origin))

    class LetThrough(AddMiddleware):
        pass

    with (
        adding_through(Mark("inner"), outermost=False),
        adding_through(Mark("outer"), outermost=True),
        adding_through(LetThrough(), outermost=False),
    ):
        job = jobqueue.enqueue("t", [])
        bundle = jobqueue.add_bundle(JobBundle.new("b", [JobDesc([], type="t")]))
    assert job.payload == service.get_job(job.id).payload == ["outer", "inner"]
    assert service.get_job_bundle(bundle.id).jobs[0].payload == []


# --- threads, tasks, contexts


def test_another_thread_is_not_affected(service, registry, ran):
    """A thread that was started by other means adds to the queue, as ever."""
    fates: list[str] = []

    def add():
        with jobqueue.use_service(service):
            fates.append(fate_of_a_job(service, ran))

    with synchronous_jobs(registry):
        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
        assert fate_of_a_job(service, ran) == "run"
    assert fates == ["stored"]


def test_each_task_has_its_own_modes(service, registry, ran):
    """A block holds for the task that is in it, and the tasks that it starts, not for those beside it."""

    async def run():
        with synchronous_jobs(registry):
            await both_are_in.wait()
            return fate_of_a_job(service, ran), await asyncio.create_task(add())

    async def ignore():
        with ignore_jobs():
            await both_are_in.wait()
            return fate_of_a_job(service, ran)

    async def add():
        return fate_of_a_job(service, ran)

    async def main():
        return await asyncio.gather(run(), ignore(), add())

    both_are_in = asyncio.Barrier(2)
    assert asyncio.run(main()) == [("run", "run"), "ignored", "stored"]


def test_a_copied_context_is_affected_while_the_block_lasts(service, registry, ran):
    """What runs in a copy of the block's context is affected within the block, and no longer."""
    with synchronous_jobs(registry):
        copied = copy_context()
        assert copied.run(fate_of_a_job, service, ran) == "run"
    assert copied.run(fate_of_a_job, service, ran) == "stored"


def test_workers_that_are_started_in_a_block(service, registry):
    """What handlers of worker threads add is affected while the block lasts, and no longer."""
    added: list[Job] = []
    registry.register_func_for_job_type("outer", lambda _: added.append(jobqueue.enqueue("inner", 1)))
    stored = lambda: [job for job in added if job in service.get_all_jobs_to_do()]  # noqa: E731 - read twice
    with ExitStack() as stack:
        with ignore_jobs("inner") as ignored:
            stack.enter_context(WorkerPool(service, registry, threads=1))
            jobqueue.enqueue("outer", 1)
            wait_until(lambda: added)
        assert (ignored, stored()) == (added, [])
        jobqueue.enqueue("outer", 2)
        wait_until(lambda: len(added) == 2)
        assert len(ignored) == 1
        assert stored() == added[1:]


# --- without a service


@pytest.mark.parametrize("mode", [synchronous_jobs, ignore_jobs, ignore_job_bundles])
def test_no_service_is_needed(mode, ran, registry):
    """Where there is no service, one that keeps nothing stands in for it, within the block only."""
    arguments = [registry] if mode is synchronous_jobs else []
    with mode(*arguments):
        job = jobqueue.enqueue("t", 1)
        bundle = jobqueue.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))
        assert jobqueue.get_status() == jobqueue.Status()
    assert (job.origin is not None, bundle.num_jobs) == (True, 1)
    assert ran == (["t", "t"] if mode is synchronous_jobs else [])
    with pytest.raises(NotInitializedError):
        jobqueue.enqueue("t", 1)


@pytest.mark.parametrize("mode", [synchronous_jobs, ignore_jobs])
def test_a_service_that_comes_within_a_block(mode, registry, ran):
    """A default service that is set within a block is the current one there: nothing else that is added gets lost."""
    arguments = [registry] if mode is synchronous_jobs else ["ignored"]
    with mode(*arguments), jobqueue.connect("memory://") as service:
        jobqueue.enqueue("early", 1)
        jobqueue.set_default_service(service)
        jobqueue.enqueue("ignored", 1)
        jobqueue.enqueue("late", 1)
        assert jobqueue.current_service() is service
        assert (ran, kept(service)) == (
            (["early", "ignored", "late"], []) if mode is synchronous_jobs else ([], ["late"])
        )
