"""Registering handlers, finding them by job type, and what a handler is besides its function."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from jobqueue.context import use_service
from jobqueue.errors import (
    DuplicateHandlerError,
    NotInitializedError,
    PayloadError,
    RegistrationError,
    RegistryFrozenError,
)
from jobqueue.handler import SERVICE_TIMEOUT, Handler
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.registry import Registry, default_registry
from jobqueue.retry import Fixed, Never

MINUTE = timedelta(minutes=1)


@attrs.frozen
class Email:
    to: str


@attrs.frozen
class Order:
    __job_type__ = "order"


def send(email: Email) -> str:
    """Send it."""
    return email.to


def send_otherwise(ctx: JobContext, email: Email) -> str:
    return email.to


def raw(ctx, job):
    return job.payload


def in_a_minute(ctx, job):
    return datetime.now(UTC) + MINUTE


class Recorder:
    """As much of a service as a handler uses."""

    def __init__(self):
        self.calls = []

    def enqueue(self, handler, payload, **options):
        self.calls.append((handler, payload, options))
        return Job.new(handler.type, payload)


@pytest.fixture
def registry():
    return Registry()


def test_a_handler_is_found_by_its_type(registry):
    """What was registered for a type is found for it, and for no other."""
    handler = registry.handler("send-email")(send)
    assert registry.find("send-email") is handler
    assert registry.is_registered("send-email")
    assert registry.find("send-emails") is None
    assert not registry.is_registered("send")


def test_without_a_type_the_payload_class_names_it(registry):
    """A type can be left out, be the payload's class, or be told by that class itself."""
    name = f"{Email.__module__}.Email"

    @registry.handler
    def bare(email: Email): ...

    registry.unregister()

    @registry.handler()
    def called(ctx: JobContext, email: Email): ...

    registry.unregister()

    @registry.handler(Email, max_retry_count=1)
    def by_class(anything): ...

    @registry.handler
    def of_order(order: Order): ...

    assert [h.type for h in (bare, called, by_class, of_order)] == [name, name, name, "order"]
    assert registry.registered_job_types() == sorted([name, "order"])


def untyped(payload): ...
def by_keys(a: int, b: int): ...
def of_a_dict(payload: dict[str, int]): ...
def of_an_int(payload: int): ...
def optional(payload: Email | None): ...


@pytest.mark.parametrize("function", [untyped, by_keys, of_a_dict, of_an_int, optional])
def test_a_function_that_does_not_tell_its_type_needs_one(registry, function):
    """Without a payload class that means something, the type must be named; the error says so."""
    with pytest.raises(RegistrationError, match=rf"{function.__name__} does not tell its job type.*name the type"):
        registry.handler(function)
    with pytest.raises(RegistrationError, match="does not tell"):
        registry.register_func(function)
    registry.register_func_for_job_type("named", function)


@pytest.mark.parametrize("name", ["x", "x" * 100, "ü" * 100, "a b", "'; drop table job"])
def test_any_name_of_1_to_100_characters_is_a_type(registry, name):
    """Type names are text, and nothing is suspected of them."""
    registry.register(name, raw)
    assert registry.find(name) is not None


@pytest.mark.parametrize("name", ["", "x" * 101, "a\0", "\ud800", "a*", "a*b", "**", "report*", "report:*:*", "*:a", 5])
def test_other_types_are_refused(registry, name):
    """What can be neither a type nor a pattern is a RegistrationError, however it is registered."""
    for register in (
        lambda: registry.register(name, raw),
        lambda: registry.register_func_for_job_type(name, send),
        lambda: registry.register_schedule_retry(name, in_a_minute),
    ):
        with pytest.raises(RegistrationError, match="type"):
            register()
    assert registry.registered_job_types() == []


def test_prefixes_end_at_a_boundary_and_the_longest_goes_first(registry):
    """An exact type is preferred to the longest prefix, that to shorter ones, and all to the star."""
    names = ["report:year", "report:year:*", "report:*", "mail.*", "file/*", "*"]
    handlers = {name: registry.handler(name)(send) for name in names}
    found = {
        "report:year": "report:year",
        "report:year:": "report:year:*",
        "report:year:2024:q1": "report:year:*",
        "report:years": "report:*",
        "report:": "report:*",
        "report": "*",
        "reports:year": "*",
        "mail.send": "mail.*",
        "mail:send": "*",
        "file/a.b": "file/*",
        "": "*",
    }
    for _ in range(2):  # the second time from the cache
        assert {type_: registry.find(type_) for type_ in found} == {t: handlers[name] for t, name in found.items()}
    registry.unregister("*")
    assert registry.is_registered("report:x")
    assert not registry.is_registered("reports:x")


def test_a_pattern_found_once_does_not_hide_what_comes_later(registry):
    """Registering and unregistering take effect on types that were looked up before."""
    star = registry.handler("*")(send)
    assert registry.find("report:year") is star
    prefix = registry.handler("report:*")(send)
    assert registry.find("report:year") is prefix
    exact = registry.handler("report:year")(send)
    assert registry.find("report:year") is exact
    registry.unregister("report:year", "report:*")
    assert registry.find("report:year") is star
    registry.unregister("*")
    assert registry.find("report:year") is None


def test_types_and_patterns_are_listed_in_order(registry):
    """What to claim is listed sorted, and the list is the caller's own."""
    for name in ("b", "report:*", "a"):
        registry.register(name, raw)
    assert registry.registered_job_types() == ["a", "b", "report:*"]
    assert registry.patterns() == ("a", "b", "report:*")
    registry.registered_job_types().clear()
    assert registry.registered_job_types() == ["a", "b", "report:*"]


def test_a_type_has_one_handler(registry):
    """A second handler for a type is refused, naming the type and both functions; the first stays."""
    first = registry.handler("send-email")(send)
    with pytest.raises(DuplicateHandlerError, match=r"'send-email'.*test_registry\.send; .*test_registry\.raw"):
        registry.register("send-email", raw)
    with pytest.raises(DuplicateHandlerError):
        registry.handler("send-email")(send)
    assert registry.find("send-email") is first


def test_unregistering_forgets_handlers_and_retry_schedules(registry):
    """Types can be unregistered singly or all at once; those that are not there are passed over."""
    for name in ("a", "b", "c"):
        registry.register(name, raw)
        registry.register_schedule_retry(name, in_a_minute)
    registry.unregister("a", "unheard-of")
    assert registry.registered_job_types() == ["b", "c"]
    assert registry.schedule_retry_of("a") is None
    assert registry.schedule_retry_of("b") is in_a_minute
    registry.unregister()
    assert registry.registered_job_types() == []
    assert registry.schedule_retry_of("b") is None
    registry.register("a", raw)


def test_a_type_has_one_retry_schedule(registry):
    """Retry schedules are found as handlers are; a second one for a type is refused."""
    registry.register_schedule_retry("report:*", in_a_minute)
    assert registry.schedule_retry_of("report:year") is in_a_minute
    assert registry.schedule_retry_of("mail") is None
    with pytest.raises(DuplicateHandlerError, match=r"'report:\*'.*in_a_minute.*raw"):
        registry.register_schedule_retry("report:*", raw)
    with pytest.raises(RegistrationError, match="JobContext and a Job"):
        registry.register_schedule_retry("mail", lambda: None)


def test_a_frozen_registry_keeps_its_handlers(registry):
    """While it is frozen, handlers neither come nor go, but retry schedules may come."""
    registry.register("a", raw)
    registry.freeze()
    for change in (
        lambda: registry.register("b", raw),
        lambda: registry.handler("b")(send),
        lambda: registry.register_func(send),
        lambda: registry.register_func_for_job_type("b", send),
        lambda: registry.unregister("a"),
        registry.unregister,
    ):
        with pytest.raises(RegistryFrozenError, match="start_threads"):
            change()
    registry.register_schedule_retry("a", in_a_minute)
    assert registry.registered_job_types() == ["a"]
    registry.thaw()
    registry.unregister("a")


def test_freezes_are_counted(registry):
    """A registry that two pools have frozen is thawed by the second of them; one thaw too many is an error."""
    registry.freeze()
    registry.freeze()
    registry.thaw()
    with pytest.raises(RegistryFrozenError):
        registry.register("a", raw)
    registry.thaw()
    registry.register("a", raw)
    with pytest.raises(RegistrationError, match="not frozen"):
        registry.thaw()


def test_a_handler_is_still_its_function(registry):
    """A decorated function is called as before, and looks like itself."""
    send_email = registry.handler("send-email")(send)
    assert send_email(Email("a")) == send_email(email=Email("a")) == "a"
    assert send_email.__name__ == "send"
    assert send_email.__doc__ == "Send it."
    assert send_email.__wrapped__ is send_email.function is send
    assert "send-email" in repr(send_email)


def test_a_handler_has_what_it_was_registered_with(registry):
    """Type, retries and timeout are the handler's; by default no retries, no policy, the service's timeout."""
    handler = registry.handler("a", max_retry_count=3, retry=Fixed(MINUTE), timeout=2 * MINUTE)(send)
    assert (handler.type, handler.max_retry_count, handler.retry) == ("a", 3, Fixed(MINUTE))
    assert (handler.timeout, handler.timeout_or(MINUTE)) == (2 * MINUTE, 2 * MINUTE)
    plain = registry.handler("b")(send)
    assert (plain.max_retry_count, plain.retry, plain.timeout) == (0, None, SERVICE_TIMEOUT)
    assert (plain.timeout_or(MINUTE), plain.timeout_or(None)) == (MINUTE, None)


@pytest.mark.parametrize("off", [None, timedelta(0)])
def test_a_handler_may_have_no_timeout(registry, off):
    """None and zero mean that the handler has no timeout, whatever the service's is."""
    assert registry.handler("a", timeout=off)(send).timeout_or(MINUTE) is None


@pytest.mark.parametrize(
    "options",
    [
        {"max_retry_count": -1},
        {"max_retry_count": True},
        {"max_retry_count": 1.0},
        {"retry": MINUTE},
        {"retry": Never},
        {"timeout": -timedelta.resolution},
        {"timeout": 60},
    ],
    ids=str,
)
def test_options_are_checked_when_registering(registry, options):
    """An option that makes no sense is refused by name, and nothing is registered."""
    (name,) = options
    with pytest.raises(RegistrationError, match=rf"{name} of .*\.send must be"):
        registry.handler("a", **options)(send)
    assert not registry.is_registered("a")


def test_a_handler_may_have_several_types(registry):
    """Decorators can be stacked: each makes a handler of its own, with its own type."""
    outer = registry.handler("outer", max_retry_count=2)(registry.handler("inner")(send_otherwise))
    assert (outer.type, outer.max_retry_count) == ("outer", 2)
    inner = registry.find("inner")
    assert (inner.type, inner.max_retry_count) == ("inner", 0)
    context = JobContext(Job.new("outer", {"to": "a"}))
    assert outer.run(context) == inner.run(context) == "a"


def test_a_handler_runs_its_function_with_the_payload(registry):
    """A run structures the job's payload; a raw handler gets context and job as they are."""
    context = JobContext(Job.new("a", {"to": "x"}))
    assert registry.handler("a")(send).run(context) == "x"
    registry.register("b", lambda ctx, job: (ctx, job))
    assert registry.find("b").run(context) == (context, context.job)
    with pytest.raises(PayloadError):
        registry.find("a").run(JobContext(Job.new("a", {"from": "x"})))


def test_enqueue_goes_through_the_current_service(registry):
    """A handler enqueues for itself, with the options as they were given."""
    send_email = registry.handler("send-email")(send)
    service = Recorder()
    with use_service(service):
        job = send_email.enqueue(Email("a"), origin="web", priority=2, delay=MINUTE, max_retry_count=0, connection="c")
        send_email.enqueue(payload=Email("b"))
    assert job.type == "send-email"
    options = {"origin": "web", "priority": 2, "delay": MINUTE, "max_retry_count": 0, "connection": "c"}
    assert service.calls == [(send_email, Email("a"), options), (send_email, Email("b"), {})]


def test_enqueue_needs_a_service(registry):
    """Without a service, enqueue says how to get one."""
    with pytest.raises(NotInitializedError):
        registry.handler("a")(send).enqueue(Email("a"))


def test_enqueue_is_documented():
    """The method's documentation is there for those who ask the class."""
    assert Handler.enqueue.__doc__.startswith("Add a job")


def test_there_is_a_default_registry():
    """The package has one registry of its own, empty until an application registers."""
    assert isinstance(default_registry, Registry)
