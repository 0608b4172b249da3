"""Retry policies as JSON: stored with a job, they are obeyed by whoever runs it."""

import json
from datetime import timedelta
from typing import Any, Final, cast

import attrs

from jobqueue.errors import InvalidJobError
from jobqueue.limits import COUNT, check_int
from jobqueue.retry import Exponential, Fixed, Linear, Never, RetryPolicy, Waits

_POLICIES: Final[tuple[type[Any], ...]] = (Never, Fixed, Linear, Exponential, Waits)
_KINDS: Final[dict[str, type[Any]]] = {kind.__name__.lower(): kind for kind in _POLICIES}


def check_retry_count(count: object, policy: object) -> int:
    """Return how often a job is run again: *count*, or else what *policy* implies. Raises InvalidJobError."""
    if count is None:
        return len(policy.waits) if isinstance(policy, Waits) else 0
    return check_int("max_retry_count", count, COUNT)


def check_retry(field: str, policy: object) -> str | None:
    """Return *policy* as JSON text, or None for none. Raises InvalidJobError when it is none that can be stored."""
    if policy is None:
        return None
    if type(policy) not in _POLICIES:
        raise InvalidJobError(
            f"{field} must be one of the policies of jobqueue ({', '.join(kind.__name__ for kind in _POLICIES)}), "
            f"which can be stored with a job, not {policy!r:.100}: name another one with the handler",
            field=field,
        )
    return policy_json(policy)


def policy_json(policy: object) -> str:
    """Spell one of the policies of jobqueue: durations in seconds."""
    fields = attrs.asdict(policy, recurse=False)  # type: ignore[arg-type]
    plain = {name: _plain(value) for name, value in fields.items()}
    return json.dumps({"policy": type(policy).__name__.lower(), **plain})


def policy_of_json(text: str) -> RetryPolicy:
    """Read a policy. Raises ValueError when it is none that this version knows."""
    fields = json.loads(text)
    kind = _KINDS.get(fields.pop("policy", ""))
    if kind is None:
        raise ValueError(f"this version of jobqueue does not know the retry policy {text:.200}")
    types = {each.name: each.type for each in attrs.fields(kind)}
    policy: RetryPolicy = kind(**{name: _value_of(types[name], plain) for name, plain in fields.items()})
    return policy


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return [_plain(each) for each in cast("tuple[object, ...]", value)] if isinstance(value, tuple) else value


def _value_of(kind: object, plain: Any) -> object:
    if kind is timedelta:
        return _duration(plain)
    return tuple(_duration(each) for each in plain) if kind == tuple[timedelta, ...] else plain


def _duration(seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except OverflowError:  # the longest one, whose seconds a float cannot tell exactly
        return timedelta.max
