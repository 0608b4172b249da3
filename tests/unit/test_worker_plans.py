"""What a worker process is told to do: what it comes to, and what the user is told when it cannot be done."""

import logging
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import jobqueue
from jobqueue import Registry, Service, WorkerPool, context, registry
from jobqueue.cli import plan, target
from jobqueue.cli.plan import Plan, PlanError
from jobqueue.queue_service import QueueService

HANDLERS = (
    "import jobqueue\nfor type in ('mail', 'report:*'): jobqueue.register_func_for_job_type(type, lambda _: None)\n"
)
SERVICE = "service = jobqueue.connect('memory://', origin='tests')\n"
POOL = "registry = jobqueue.Registry()\nregistry.register_func_for_job_type('t', lambda _: None)\n"


@pytest.fixture
def default_registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry in place of the process's."""
    made = Registry()
    monkeypatch.setattr(plan, "default_registry", made)
    monkeypatch.setattr(jobqueue, "register_func_for_job_type", made.register_func_for_job_type)
    return made


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_registry: Registry) -> Iterator[str]:
    """The name of a module of the directory that one is in, which a test writes to `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr(context, "_default", None)
    name = f"app_{tmp_path.name}"
    yield name
    if isinstance(service := getattr(sys.modules.pop(name, None), "service", None), QueueService):
        service.close()


def plan_for(target: str, **options: object) -> Plan:
    arguments = {"target": target, "dsn": "host=127.0.0.1 port=1 connect_timeout=2", "schema": "worker"}
    return Plan(set_up="jobqueue.cli.target:load", arguments=arguments, **options)  # type: ignore[arg-type]


def write(module: str, text: str) -> None:
    Path(f"{module}.py").write_text(text)


# --- what it comes to


@pytest.mark.parametrize("name", ["pool", "make_pool"])
def test_a_pool(module: str, name: str) -> None:
    """A pool that is named is taken as it is, and so is one that a function returns."""
    write(
        module, HANDLERS + SERVICE + POOL + "pool = jobqueue.WorkerPool(service, registry)\nmake_pool = lambda: pool\n"
    )
    made = plan_for(f"{module}:{name}").make_pool()
    assert made.registry.patterns() == ("t",)


@pytest.mark.parametrize("name", [":service", ":make_service", ""])
def test_a_service(module: str, name: str) -> None:
    """A service, named, made by a function, or set as the default one, gets a pool of what is registered."""
    write(module, HANDLERS + SERVICE + "make_service = lambda: service\njobqueue.set_default_service(service)\n")
    made = plan_for(f"{module}{name}", threads=7, lanes={"mail": 2}).make_pool()
    assert made.registry.patterns() == ("mail", "report:*")
    assert (made._threads, made._lanes) == (7, {"mail": 2})


@pytest.mark.parametrize(
    ("types", "expected"),
    [(("mail",), ("mail",)), (("report:daily", "mail"), ("mail", "report:daily")), (("*",), ("mail", "report:*"))],
)
def test_types(module: str, types: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Only jobs of the types are claimed; a type that a pattern covers has the handler of that."""
    write(module, HANDLERS + SERVICE)
    made = plan_for(f"{module}:service", types=types).make_pool()
    assert made.registry.patterns() == expected
    assert all(made.registry.is_registered(name) for name in expected)


def test_logs_go_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging is configured where nobody has; an application that has done it is left alone."""
    root = logging.getLogger()
    configured: list[object] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: configured.append(options))
    plan.log_somewhere()
    assert not configured  # pytest listens
    monkeypatch.setattr(root, "handlers", [])
    plan.log_somewhere()
    assert len(configured) == 1


# --- what the user is told


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        (None, "", "there is no module 'app_"),
        ("import nothing_of_the_kind", "", "ModuleNotFoundError: No module named 'nothing_of_the_kind' ("),
        ("x = 1\n1 / 0", "", "ZeroDivisionError: division by zero ("),
        ("def f(:", "", "SyntaxError: "),
        ("import sys\nsys.exit('configure me')", "", "SystemExit: configure me ("),
        ("raise SystemExit(0)", "", "SystemExit: 0 ("),
        ("raise KeyboardInterrupt", "", "KeyboardInterrupt: KeyboardInterrupt ("),
        (HANDLERS + "import sys\ndef f(): sys.exit('configure me')", ":f", "SystemExit: configure me ("),
        (HANDLERS, ":pol", "has no 'pol'"),
        (HANDLERS + SERVICE, ":services", "did you mean 'service'?"),
        ("number = 3", ":number", "is 3, which is neither a worker pool nor a service"),
        ("f = lambda: 3", ":f", "returns 3, which is neither a worker pool nor a service"),
        ("import jobqueue\n" + SERVICE, ":service", "no handlers are registered"),
        (HANDLERS, "", "Connection refused"),
        (HANDLERS, ":", "is no module, nor a module and a name in it"),
        (
            "import jobqueue\n" + SERVICE + "pool = jobqueue.WorkerPool(service, jobqueue.Registry())",
            ":pool",
            "no handlers are registered in the registry of this worker pool",
        ),
    ],
)
def test_what_cannot_be_loaded(module: str, text: str | None, name: str, expected: str) -> None:
    """It is told in a line, with the place in the user's code, if that is where it is."""
    if text is not None:
        write(module, text)
    with pytest.raises(PlanError) as caught:
        plan_for(f"{module}{name}").make_pool()
    told = str(caught.value)
    assert expected in told
    assert "\n" not in told
    if " (" in expected:
        assert f"{module}.py, line" in told


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"types": ("nothing",)}, "jobs of type 'nothing' have no handler here: there are handlers for mail, report:*"),
        ({"lanes": {"mail": 4}}, "lanes reserve 4 of 4 threads"),
    ],
)
def test_options_that_do_not_fit(module: str, options: dict[str, object], expected: str) -> None:
    """They are told before anything starts."""
    write(module, HANDLERS + SERVICE)
    with pytest.raises(PlanError, match=expected.replace("*", r"\*")):
        plan_for(f"{module}:service", **options).make_pool()


@pytest.mark.parametrize("options", [{"threads": 2}, {"types": ("t",)}, {"lanes": {"t": 1}}, {"log_runs": True}])
def test_a_pool_has_its_own_options(module: str, options: dict[str, object]) -> None:
    """What a pool decides itself cannot be given beside it."""
    write(module, HANDLERS + SERVICE + POOL + "pool = jobqueue.WorkerPool(service, registry)\n")
    with pytest.raises(PlanError, match="of its own"):
        plan_for(f"{module}:pool", **options).make_pool()


def test_a_pool_that_runs(module: str) -> None:
    """The command starts it, nobody else."""
    write(module, HANDLERS + SERVICE + POOL + "pool = jobqueue.WorkerPool(service, registry)\npool.start()\n")
    with pytest.raises(PlanError, match="was started already"):
        plan_for(f"{module}:pool").make_pool()


# --- what it is made of


def test_only_some_handlers() -> None:
    """A registry of some types leaves the other one as it is, and keeps its retry schedules and schedules."""
    whole = Registry()
    whole.register_func_for_job_type("a:*", lambda _: None)
    whole.register_func_for_job_type("b", lambda _: None)
    whole.register_schedule_retry("*", lambda context, job: job.created_at)  # type: ignore[arg-type,return-value]
    part = whole.only(["a:1"])
    assert (part.patterns(), whole.patterns()) == (("a:1",), ("a:*", "b"))
    assert part.find("a:1") is whole.find("a:1")
    assert part.schedule_retry_of("a:1") is not None
    assert not part.is_registered("b")
    with pytest.raises(registry.RegistrationError, match="'c' have no handler"):
        whole.only(["c"])


def test_what_is_a_service() -> None:
    """What an application made of its own counts, if it has what workers need."""
    with closing(jobqueue.connect("memory://", origin="tests")) as service:
        assert plan.is_service(service)
        assert not plan.is_service(WorkerPool(service))
    assert not plan.is_service(Service)
    assert target.hint_without("x") == ""
