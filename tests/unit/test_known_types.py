"""Types of jobs without a handler, where they are added: allowed, warned of when they look misspelt, or refused."""

import logging

import pytest

import jobqueue
from jobqueue import InvalidJobError, InvalidScheduleError, Job, JobBundle, JobDesc, Registry
from jobqueue.registry import default_registry

WAYS = {
    "enqueue": lambda service, name: service.enqueue(name, 1),
    "add_job": lambda service, name: service.add_job(Job.new(name, 1)),
    "add_jobs": lambda service, name: service.add_jobs([Job.new("send-email", 1), Job.new(name, 1)]),
    "member": lambda service, name: service.add_bundle(JobBundle.new("b", [JobDesc(1, type=name)])),
    "on_stopped": lambda service, name: service.add_bundle(
        JobBundle.new("b", [JobDesc(1, type="send-email")], on_stopped=JobDesc(1, type=name))
    ),
    "schedule": lambda service, name: service.add_schedule("s", name, cron="* * * * *"),
    "change": lambda service, name: (
        service.add_schedule("s", "send-email", cron="* * * * *"),
        service.change_schedule("s", type=name),
    ),
}


@pytest.fixture
def handlers(monkeypatch):
    """Handlers of the default registry, for this test."""
    monkeypatch.setattr(default_registry, "_handlers", Registry()._handlers)
    for name in ("send-email", "report:*", "thumbnail"):
        default_registry.register(name, lambda ctx, job: None)


def connect(way):
    return jobqueue.connect("memory://", unknown_types=way)


@pytest.mark.parametrize("add", WAYS.values(), ids=WAYS)
@pytest.mark.usefixtures("handlers")
def test_refused_with_what_was_meant(add):
    """Nothing is added, however that is tried, and the error names the type that is like it."""
    with connect("refuse") as service:
        with pytest.raises(InvalidJobError, match=r"'send-emial': did you mean 'send-email'\?") as raised:
            add(service, "send-emial")
        assert raised.value.field == "type"
        assert service.get_status().is_zero
        assert isinstance(raised.value, InvalidScheduleError) == (add in {WAYS["schedule"], WAYS["change"]})


@pytest.mark.parametrize("add", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("type", ["send-email", "report:monthly"])
@pytest.mark.parametrize("way", ["refuse", "warn"])
@pytest.mark.usefixtures("handlers")
def test_types_with_a_handler_are_known(add, type, way, caplog):
    """A name that is registered, or that a pattern covers, is added without a word."""
    with connect(way) as service:
        add(service, type)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("handlers")
def test_refused_without_a_guess():
    """A type that is like none says how to add what others handle."""
    with connect("refuse") as service, pytest.raises(InvalidJobError, match="unknown_types='allow'"):
        service.enqueue("zzz", 1)


def test_refused_where_there_are_no_handlers(monkeypatch):
    """Who has forgotten to import all handlers is told so."""
    monkeypatch.setattr(default_registry, "_handlers", Registry()._handlers)
    monkeypatch.setattr("jobqueue.registry._registries", [default_registry])
    with connect("refuse") as service, pytest.raises(InvalidJobError, match="nor for any other"):
        service.enqueue("t", 1)


@pytest.mark.usefixtures("handlers")
def test_handlers_of_other_registries_count():
    """A handler is one wherever it is registered in this process; and a handler itself names a type that has one."""
    other = Registry()
    other.register("elsewhere", lambda ctx, job: None)
    alone = Registry().handler("alone")(lambda: None)
    with connect("refuse") as service:
        service.enqueue("elsewhere", 1)
        service.enqueue(alone, {})


@pytest.mark.usefixtures("handlers")
def test_warned_of_once(caplog):
    """By default such a job is added, with a warning the first time; what is like nothing is no matter."""
    with jobqueue.connect("memory://") as service:
        for _ in range(3):
            service.enqueue("send-emial", 1)
            service.enqueue("of another process", 1)
        assert service.get_status().num_jobs == 6
    [warning] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'send-emial'" in warning
    assert "did you mean 'send-email'?" in warning


@pytest.mark.usefixtures("handlers")
def test_allowed(caplog):
    """Nothing is said when that is what is wanted."""
    with connect("allow") as service:
        service.enqueue("send-emial", 1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("handlers")
def test_no_more_names_are_judged_than_fit(caplog, monkeypatch):
    """Who adds jobs of ever new types does not pay for each, nor is each remembered."""
    monkeypatch.setattr("jobqueue.known_types._MOST_JUDGED", 1)
    with connect("warn") as service:
        for name in ("zzz", "send-emial"):
            service.enqueue(name, 1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("way", ["no", "", None, True])
def test_anything_else_is_refused_at_once(way):
    """The setting is one of three words."""
    with pytest.raises(ValueError, match="unknown_types must be one of 'allow', 'warn', 'refuse'"):
        connect(way)
