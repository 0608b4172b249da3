"""What type checkers know of handlers: checked by mypy and pyright, never run.

An expected error has a comment that both checkers follow; where it is not needed, it is an error itself.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=error

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import attrs

from jobqueue.answers import Discard, Snooze
from jobqueue.handler import Enqueue, Handler
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.registry import Registry
from jobqueue.retry import Exponential, Fixed, Never, RetryPolicy

registry = Registry()


@attrs.frozen
class Email:
    to: str


@attrs.frozen
class HtmlEmail(Email):
    html: str


@attrs.frozen
class Receipt:
    number: int


# --- the whole payload


@registry.handler("send-email", max_retry_count=3, retry=Exponential(), timeout=timedelta(minutes=15))
def send_email(email: Email) -> Receipt:
    return Receipt(len(email.to))


@registry.handler
def send_with_context(ctx: JobContext, email: Email) -> Receipt | Snooze | Discard:
    return Snooze(timedelta(1)) if ctx.is_cancelled else send_email(email)


@registry.handler(Email)
def send_by_class(email: Email, /) -> None: ...


@registry.handler("list")
def send_all(emails: list[Email]) -> None: ...


@registry.handler("anything")
def take_anything(payload: Any) -> None: ...


assert_type(send_email(Email("a")), Receipt)
assert_type(send_email(email=Email("a")), Receipt)
assert_type(send_email.enqueue, Enqueue[Email])
assert_type(send_email.enqueue(Email("a")), Job)
assert_type(send_with_context.enqueue, Enqueue[Email])
assert_type(send_by_class.enqueue, Enqueue[Email])
assert_type(send_all.enqueue, Enqueue[list[Email]])
send_email.enqueue(HtmlEmail("a", "b"), origin="web", priority=1, delay=timedelta(1), max_retry_count=0)
send_email.enqueue(payload=Email("a"), start_at=datetime.now(UTC), connection=object())
take_anything.enqueue({"a": 1})

send_email.enqueue(Receipt(1))  # type: ignore[arg-type]
send_email.enqueue("a@b.c")  # type: ignore[arg-type]
send_email.enqueue({"to": "a"})  # type: ignore[arg-type]
send_email.enqueue()  # type: ignore[call-arg]
send_email.enqueue(Email("a"), prio=1)  # type: ignore[call-arg]
send_with_context.enqueue(Receipt(1))  # type: ignore[arg-type]
send_by_class.enqueue(Receipt(1))  # type: ignore[arg-type]
send_all.enqueue([Receipt(1)])  # type: ignore[list-item]
send_email(Receipt(1))  # type: ignore[arg-type]
send_with_context(Email("a"))  # type: ignore[call-arg, arg-type]


# --- keys of a payload


@registry.handler("keys")
def send_keys(to: str, size: int = 0) -> str:
    return to * size


@registry.handler("keys-after-context")
def send_keys_with_context(ctx: JobContext, to: str, size: int = 0) -> None: ...


@registry.handler("many-keys")
def send_many_keys(ctx: JobContext, to: str, cc: str, bcc: str, size: int) -> None: ...


@registry.handler("keywords")
def send_keywords(*, to: str) -> None: ...


@registry.handler("nothing")
def clean_up() -> None: ...


assert_type(send_keys("a", size=2), str)
assert_type(send_keys.enqueue, Enqueue[Mapping[str, Any]])
assert_type(send_keys_with_context.enqueue, Enqueue[Mapping[str, Any]])
assert_type(send_many_keys.enqueue, Enqueue[Mapping[str, Any]])
assert_type(send_keywords.enqueue, Enqueue[Mapping[str, Any]])
assert_type(clean_up.enqueue, Enqueue[Mapping[str, Any]])
send_keys.enqueue({"to": "a", "size": 1})
clean_up.enqueue({})

send_keys.enqueue("a")  # type: ignore[arg-type]
send_keys_with_context.enqueue(1)  # type: ignore[arg-type]
send_keywords.enqueue(["a"])  # type: ignore[arg-type]
clean_up.enqueue(None)  # type: ignore[arg-type]
send_keys(1)  # type: ignore[arg-type]


# --- other ways to register


class Mailer:
    def send(self, ctx: JobContext, email: Email) -> Receipt:
        return send_email(email)


def plain(email: Email) -> Receipt:
    return send_email(email)


def raw(ctx: JobContext, job: Job) -> object:
    return ctx.job is job


def in_an_hour(ctx: JobContext, job: Job) -> datetime:
    return ctx.deadline or datetime.now(UTC)


assert_type(registry.register_func(plain).enqueue, Enqueue[Email])
assert_type(registry.register_func_for_job_type("method", Mailer().send).enqueue, Enqueue[Email])
registry.register("raw", raw)
registry.register_schedule_retry("raw", in_an_hour)

registry.register("raw", plain)  # type: ignore[arg-type]
registry.register_schedule_retry("raw", raw)  # type: ignore[arg-type]
registry.handler("timeout", timeout=60)  # type: ignore[call-overload]
registry.handler("retry", retry=timedelta(1))  # type: ignore[call-overload]
registry.handler(5)  # type: ignore[call-overload]


def any_handler(handler: Handler[..., Any]) -> str:
    return handler.type


any_handler(send_email)
any_handler(send_keys)
policies: list[RetryPolicy] = [Never(), Fixed(timedelta(1)), Exponential(base=timedelta(1))]


# --- schedules


@registry.scheduled("daily", cron="@daily", timeout=None, missed="skip")
def daily(ctx: JobContext) -> str:
    return str(ctx.job.start_at)


accepted: Handler[[JobContext], str] = daily
registry.scheduled("hourly", every=3600)  # type: ignore[arg-type]
registry.scheduled("hourly", every=timedelta(hours=1), colour="blue")  # type: ignore[call-arg]
