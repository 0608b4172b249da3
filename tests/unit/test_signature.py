"""Call plans: what a handler's parameters are filled with, and which functions can be no handlers."""

import functools
from typing import Annotated, Any

import attrs
import pytest

from jobqueue.errors import PayloadError, RegistrationError
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.signature import HandlerCall, check_takes_context_and_job, name_of

CONTEXT = JobContext(Job.new("any", 1))


@attrs.frozen
class Email:
    to: str
    size: int = 0


class Mailer:
    def send(self, ctx: JobContext, email: Email) -> Email:
        return email

    def __call__(self, email: "Email") -> Email:
        return email

    @staticmethod
    def send_static(email: Email) -> Email:
        return email

    @classmethod
    def send_class(cls, to: str, size: int) -> tuple[str, int]:
        return to, size


def call(function, payload):
    """Call *function* as a worker would."""
    args, kwargs = HandlerCall.of(function).bind(CONTEXT, payload)
    return function(*args, **kwargs)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def whole(email: Email):
    return email


def whole_after_context(ctx: JobContext, email: Email):
    return ctx, email


def whole_in_text(ctx: "JobContext", email: "list[Email]") -> "NowhereToBeFound":  # noqa: F821 - on purpose
    return ctx, email


def whole_plain(payload):
    return payload


def two(to: str, size: int = 7):
    return to, size


def two_after_context(ctx: JobContext, to: str, email: Email):
    return ctx, to, email


def one_keyword(*, size: int):
    return size


def mixed(to, *, size: int = 7):
    return to, size


def nothing():
    return "done"


def only_context(ctx: JobContext):
    return ctx


def mailer_and_email(mailer, email: Email):
    return mailer, email


@pytest.mark.parametrize(
    ("function", "payload", "result"),
    [
        (whole, {"to": "a"}, Email("a")),
        (whole_after_context, {"to": "a"}, (CONTEXT, Email("a"))),
        (whole_in_text, [{"to": "a"}, {"to": "b"}], (CONTEXT, [Email("a"), Email("b")])),
        (lambda email, /: email, {"to": "a"}, {"to": "a"}),
        (Mailer().send, {"to": "a"}, Email("a")),
        (Mailer(), {"to": "a"}, Email("a")),
        (Mailer.send_static, {"to": "a"}, Email("a")),
        (logged(whole), {"to": "a"}, Email("a")),
        (logged(Mailer()), {"to": "a"}, Email("a")),
        (logged(logged(whole_in_text)), [], (CONTEXT, [])),
        (functools.partial(mailer_and_email, "smtp"), {"to": "a"}, ("smtp", Email("a"))),
        (functools.partial(mixed, size=9), "a", ("a", 9)),
        (functools.partial(logged(whole_in_text)), [], (CONTEXT, [])),
        (logged(functools.partial(whole)), {"to": "a"}, Email("a")),
    ],
    ids=name_of,
)
def test_one_positional_parameter_takes_the_whole_payload(function, payload, result):
    """One positional parameter, after an optional context, takes the payload, structured to its annotation."""
    assert call(function, payload) == result


@pytest.mark.parametrize("payload", [{"to": "a"}, [1], "text", 5, 1.5, True, None])
@pytest.mark.parametrize("annotation", [None, Any, object], ids=str)
def test_without_an_annotation_the_payload_stays_plain_json(annotation, payload):
    """A parameter without an annotation, or with Any or object, takes the decoded JSON value as it is."""

    def handle(payload):
        return payload

    handle.__annotations__ = {} if annotation is None else {"payload": annotation}
    assert call(handle, payload) is payload


@pytest.mark.parametrize(
    ("function", "payload", "result"),
    [
        (two, {"to": "a", "size": 1}, ("a", 1)),
        (two, {"to": "a"}, ("a", 7)),
        (two_after_context, {"to": "a", "email": {"to": "b"}}, (CONTEXT, "a", Email("b"))),
        (one_keyword, {"size": 3}, 3),
        (mixed, {"to": [1]}, ([1], 7)),
        (Mailer.send_class, {"to": "a", "size": 1}, ("a", 1)),
        (functools.partial(mailer_and_email, mailer="smtp"), {"email": {"to": "a"}}, ("smtp", Email("a"))),
    ],
    ids=name_of,
)
def test_several_parameters_take_the_keys_of_an_object(function, payload, result):
    """Two or more parameters, or keyword-only ones, take the keys of the payload, missing ones their defaults."""
    assert call(function, payload) == result


@pytest.mark.parametrize("payload", [{}, {"any": "thing"}])
def test_a_handler_without_parameters_takes_any_object(payload):
    """A handler without parameters asks nothing of its payload but that it is an object."""
    assert call(nothing, payload) == "done"
    assert call(only_context, payload) is CONTEXT


@pytest.mark.parametrize("function", [nothing, only_context, two, one_keyword])
@pytest.mark.parametrize("payload", [[], "text", 5, None])
def test_keys_need_an_object(function, payload):
    """A payload that is no object has no keys to fill parameters with."""
    with pytest.raises(PayloadError, match="not an object") as caught:
        call(function, payload)
    assert [path for path, _ in caught.value.problems] == ["$"]


@pytest.mark.parametrize(
    ("payload", "problems"),
    [
        ({"to": "a"}, [("$.email", "is missing")]),
        ({"to": "a", "email": {"to": "b"}, "cc": 1}, [("$.cc", "is not a parameter")]),
        ({"to": "a", "email": {"to": "b"}, "ctx": 1}, [("$.ctx", "is not a parameter")]),
        ({"email": {}, "x": 1}, [("$.to", None), ("$.email.to", None), ("$.x", None)]),
    ],
)
def test_every_misfit_among_the_keys_is_told(payload, problems):
    """Missing, unknown and unfit keys are told all at once, each by its path, with the function's name."""
    with pytest.raises(PayloadError, match="two_after_context") as caught:
        call(two_after_context, payload)
    assert [path for path, _ in caught.value.problems] == [path for path, _ in problems]
    for (path, reason), (_, expected) in zip(caught.value.problems, problems, strict=True):
        assert expected is None or reason == expected
        assert path in str(caught.value)


def test_a_misfit_of_the_whole_payload_is_told_by_its_path():
    """A payload that does not fit the annotation is a PayloadError, whose problems have paths."""
    with pytest.raises(PayloadError, match="does not fit Email") as caught:
        call(whole, {"to": "a", "size": "many"})
    assert [path for path, _ in caught.value.problems] == ["$.size"]


@pytest.mark.parametrize(
    ("function", "payload_type"),
    [(whole, Email), (whole_in_text, list[Email]), (whole_plain, None), (two, None), (nothing, None)],
    ids=name_of,
)
def test_the_payload_type_is_the_annotation_of_the_whole_payload(function, payload_type):
    """What the one payload parameter is annotated with is the payload type; otherwise there is none."""
    assert HandlerCall.of(function).payload_type == payload_type


@pytest.mark.parametrize(
    "annotation", [JobContext, "JobContext", JobContext | None, Annotated[JobContext, "note"]], ids=str
)
def test_a_context_may_be_annotated_in_several_ways(annotation):
    """An optional or annotated JobContext is one, too."""

    def handle(ctx, email):
        return ctx, email

    handle.__annotations__ = {"ctx": annotation, "email": Email}
    assert call(handle, {"to": "a"}) == (CONTEXT, Email("a"))


async def asynchronous(email: Email):
    pass


async def asynchronous_generator():
    yield


def generator(email: Email):
    yield email


class AsynchronousCall:
    async def __call__(self, email: Email):
        pass


def many(*emails: Email):
    pass


def options(email: Email, **rest: Any):
    pass


def by_position(to: str, size: int, /):
    pass


def context_last(email: Email, ctx: JobContext):
    pass


def context_by_key(*, ctx: JobContext):
    pass


def two_contexts(a: JobContext, b: JobContext):
    pass


def unresolved(email: "NowhereToBeFound"):  # noqa: F821 - on purpose
    pass


def misspelled(email: "list["):  # noqa: F722 - on purpose
    pass


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (asynchronous, r"asynchronous is an async function, but jobqueue runs plain functions: .*asyncio\.run"),
        (functools.partial(asynchronous), "asynchronous is an async function"),
        (AsynchronousCall(), "AsynchronousCall is an async function"),
        (asynchronous_generator, "asynchronous_generator is an async function"),
        (generator, "generator is a generator function, .*return"),
        (Email, "Email is a class: register a function"),
        (5, "5 cannot be called"),
        (None, "None cannot be called"),
        (many, r"many takes \*emails.*name each parameter"),
        (options, r"options takes \*\*rest.*name each parameter"),
        (by_position, "by_position takes 'to' by its position only.*take the '/' out"),
        (context_last, "context_last takes a JobContext as 'ctx': only its first"),
        (context_by_key, "context_by_key takes a JobContext as 'ctx': only its first"),
        (two_contexts, "two_contexts takes a JobContext as 'b': only its first"),
        (unresolved, "unresolved cannot be resolved .*'NowhereToBeFound' is not defined"),
        (misspelled, "misspelled cannot be resolved"),
        (max, "parameters of builtins.max: register a function that calls it"),
    ],
    ids=lambda value: "" if isinstance(value, str) else name_of(value),
)
def test_what_cannot_be_a_handler_is_refused_with_the_way_out(function, reason):
    """A function that cannot be run as a handler is refused by name, with what is wrong and what to do."""
    with pytest.raises(RegistrationError, match=reason):
        HandlerCall.of(function)


def test_annotations_that_are_evaluated_late_may_be_unresolved():
    """A name that is missing when the signature is asked for, as from Python 3.14 on, is told like any other."""

    class Late:
        __signature__ = property(lambda self: NowhereToBeFound)  # noqa: F821 - on purpose

        def __call__(self):
            pass

    with pytest.raises(RegistrationError, match="Late cannot be resolved"):
        HandlerCall.of(Late())


def test_a_plain_wrapper_of_an_async_function_is_a_handler():
    """What counts is what a call does: a wrapper that runs a coroutine to its end is a plain function."""

    @functools.wraps(asynchronous)
    def run(email):
        return email

    assert call(run, {"to": "a"}) == Email("a")


def test_functions_are_named_with_their_module():
    """Functions, methods, partials and callable objects have names that lead to their code."""
    assert name_of(whole) == f"{__name__}.whole"
    assert name_of(Mailer().send) == f"{__name__}.Mailer.send"
    assert name_of(Mailer()) == f"{__name__}.Mailer"
    assert name_of(functools.partial(functools.partial(whole))) == f"{__name__}.whole"


@pytest.mark.parametrize("function", [lambda ctx, job: 1, lambda *args: 1, lambda ctx, job, more=1: 1])
def test_a_raw_handler_takes_context_and_job(function):
    """A function that can be called with two positional arguments is accepted."""
    check_takes_context_and_job(function)


@pytest.mark.parametrize("function", [lambda: 1, lambda job: 1, lambda a, b, c: 1, lambda ctx, *, job: 1, asynchronous])
def test_other_functions_are_no_raw_handlers(function):
    """Any other function is refused when it is registered, not when the first job comes."""
    with pytest.raises(RegistrationError, match=r"with a JobContext and a Job|async"):
        check_takes_context_and_job(function)
