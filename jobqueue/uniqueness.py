"""Unique keys: of the jobs of one type, one at a time holds a key, for as long as its scope says."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, cast, get_args

from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_text
from jobqueue.payload import load_json

UniqueFor = Literal["waiting", "waiting_and_running", "until_succeeded"]
"""Until when a job holds its unique key: until it is claimed, until it has stopped, until it has succeeded."""

OnConflict = Literal["ignore", "raise", "replace_payload"]
"""What is done when another job holds the unique key of one that is added."""

_SCOPES: Final[Sequence[str]] = get_args(UniqueFor)
_WAYS: Final[Mapping[str, OnConflict]] = {way: way for way in get_args(OnConflict)}
_DEFAULT_SCOPE: Final[UniqueFor] = "waiting_and_running"

# An entry of an index has room for 2,700.
_MAX_KEY_BYTES: Final = 200
_READABLE_BYTES: Final = 120
_LONGEST_PERIOD: Final = timedelta(days=100 * 365)
_SHORTEST_LOCK_TIMEOUT: Final = timedelta(milliseconds=1)  # 0 would be for ever
_LONGEST_LOCK_TIMEOUT: Final = timedelta(days=1)


def check_unique(
    key: object, by: object, unique_for: object, payload_json: str
) -> tuple[str | None, UniqueFor | timedelta | None]:
    """Return the unique key of a job and how long it is held, from what was given of them, or None and None.

    Raises InvalidJobError.
    """
    if key is None and by is None:
        if unique_for is not None:
            raise InvalidJobError(
                "unique_for says how long a key is held: give unique_key or unique_by, too", field="unique_for"
            )
        return None, None
    if key is not None and by is not None:
        raise InvalidJobError("give unique_key or unique_by, not both", field="unique_by")
    found = _checked_key(key) if key is not None else _key_of_fields(by, payload_json)
    return _of_bounded_size(found), check_unique_for(_DEFAULT_SCOPE if unique_for is None else unique_for)


def _checked_key(key: object) -> str:
    text = check_text("unique_key", key)
    if not text:
        raise InvalidJobError("unique_key is empty: leave it out when there is none", field="unique_key")
    # Not what str() makes of it, which for a member of an enum may be its name.
    return str.__str__(text)


def _key_of_fields(names: object, payload_json: str) -> str:
    fields = _checked_names(names)
    payload = load_json(payload_json)
    if not isinstance(payload, dict):
        raise InvalidJobError("unique_by names fields of a payload, but this one is no JSON object", field="unique_by")
    present = cast("dict[str, Any]", payload)
    if missing := [name for name in fields if name not in present]:
        raise InvalidJobError(
            f"unique_by names {', '.join(map(repr, missing))}, which the payload has not: "
            f"it has {', '.join(map(repr, present)) or 'no fields'}"[:500],
            field="unique_by",
        )
    chosen = {name: present[name] for name in fields}
    return json.dumps(chosen, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _checked_names(names: object) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidJobError(
            f"unique_by takes the names of payload fields, such as ['to', 'subject'], not {names!r:.60}",
            field="unique_by",
        )
    found = list(cast("Iterable[object]", names))
    if not found or not all(isinstance(name, str) for name in found):
        raise InvalidJobError(
            f"unique_by takes one or more names of payload fields, not {found!r:.60}", field="unique_by"
        )
    return cast("list[str]", found)


def _of_bounded_size(key: str) -> str:
    """Return *key*, or the beginning of a long one with a hash of all of it."""
    spelt = key.encode()
    if len(spelt) <= _MAX_KEY_BYTES:
        return key
    return f"{spelt[:_READABLE_BYTES].decode(errors='ignore')}...sha256:{hashlib.sha256(spelt).hexdigest()}"


def check_unique_for(value: object) -> UniqueFor | timedelta:
    """Return a scope, or for how long a key is held, or raise InvalidJobError."""
    if isinstance(value, timedelta):
        if timedelta(0) < value <= _LONGEST_PERIOD:
            return value
        raise InvalidJobError(
            f"unique_for must be more than zero and at most 100 years, not {value}", field="unique_for"
        )
    if isinstance(value, str) and value in _SCOPES:
        return cast("UniqueFor", str.__str__(value))
    raise InvalidJobError(
        f"unique_for must be one of {', '.join(map(repr, _SCOPES))} or a timedelta, not {value!r:.60}",
        field="unique_for",
    )


def check_on_conflict(value: object) -> OnConflict:
    """Return what to do with duplicates, or raise InvalidJobError."""
    if isinstance(value, str) and (way := _WAYS.get(value)) is not None:
        return way
    raise InvalidJobError(
        f"on_conflict must be one of {', '.join(map(repr, _WAYS))}, not {value!r:.60}", field="on_conflict"
    )


def check_lock_timeout(field: str, value: object) -> None:
    """Raise TypeError or ValueError unless a job may wait so long for an open transaction that has added its key."""
    if not isinstance(value, timedelta):
        raise TypeError(f"{field} must be a timedelta, not {value!r:.60}")
    if not _SHORTEST_LOCK_TIMEOUT <= value <= _LONGEST_LOCK_TIMEOUT:
        raise ValueError(f"{field} must be a millisecond to a day, not {value}")


def check_held(key: object, unique_for: object) -> None:
    """Raise InvalidJobError unless a job that was not made by Job.new can hold *key*."""
    size = len(_checked_key(key).encode())
    if size > _MAX_KEY_BYTES:
        raise InvalidJobError(
            f"unique_key has {size:,} bytes: Job.new() makes one of up to {_MAX_KEY_BYTES} of it", field="unique_key"
        )
    check_unique_for(unique_for)
