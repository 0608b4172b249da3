"""What the database will accept of a job's values; each check returns the value, or raises an error that names it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, cast
from uuid import UUID

from jobqueue.errors import InvalidJobError, PayloadError
from jobqueue.payload import dump_json

MAX_NAME_LENGTH: Final = 100
BIGINT: Final = range(-(2**63), 2**63)
COUNT: Final = range(2**31)
PATTERN_BOUNDARIES: Final = ":./"
"""What a prefix of job types may end with."""


def check_name(field: str, value: object) -> str:
    """Return a type or origin that the database will accept, or raise InvalidJobError."""
    name = check_text(field, value)
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise InvalidJobError(
            f"{field} must have 1 to {MAX_NAME_LENGTH} characters, but {name[:40]!r} has {len(name)}", field=field
        )
    return name


def check_type_or_pattern(field: str, value: object) -> str:
    """Return a job type, or a pattern that stands for several, or raise InvalidJobError."""
    name = check_name(field, value)
    prefix, star, rest = name.partition("*")
    if star and (rest or prefix[-1:] not in PATTERN_BOUNDARIES):
        raise InvalidJobError(
            f"{name!r} is neither a job type, which has no '*', nor a pattern, which is '*' alone, "
            "or a prefix that ends in ':*', '.*' or '/*'",
            field=field,
        )
    return name


def check_text(field: str, value: object) -> str:
    """Return a text to compare with a column, which other programs may have filled with more than check_name allows."""
    if not isinstance(value, str):
        raise InvalidJobError(f"{field} must be a str, not {type(value).__qualname__}", field=field)
    if "\0" in value or not (value.isascii() or value.encode(errors="replace").decode() == value):
        raise InvalidJobError(f"{field} {value[:40]!r} contains a character that PostgreSQL cannot store", field=field)
    return value


def check_moment(field: str, value: object) -> datetime | None:
    """Return an aware moment, or None, or raise InvalidJobError."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidJobError(f"{field} must be a datetime, not {type(value).__qualname__}", field=field)
    if value.utcoffset() is None:
        raise InvalidJobError(
            f"{field} {value} has no time zone: use datetime.now(UTC), or give the datetime a tzinfo", field=field
        )
    return value


def check_id(value: object, field: str = "id") -> UUID:
    """Return an id, or raise InvalidJobError."""
    if not isinstance(value, UUID):
        raise InvalidJobError(f"{field} must be a uuid.UUID, not {type(value).__qualname__} {value!r:.40}", field=field)
    return value


def check_ids(values: object) -> list[UUID]:
    """Return several ids, or raise InvalidJobError."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidJobError(
            f"ids must be several uuid.UUID, such as a list, not {type(values).__qualname__} {values!r:.40}",
            field="ids",
        )
    return [check_id(value, "ids") for value in cast("Iterable[object]", values)]


def check_int(field: str, value: object, allowed: range) -> int:
    """Return a number in the range *allowed*, or raise InvalidJobError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidJobError(f"{field} must be an int, not {type(value).__qualname__}", field=field)
    # Not `in`, which counts through the range for what is derived from int, such as the members of an IntEnum.
    if not allowed.start <= value < allowed.stop:
        raise InvalidJobError(f"{field} must be {allowed.start} to {allowed.stop - 1}, not {value}", field=field)
    return int(value)


def check_payload(payload: object, max_bytes: int) -> str:
    """Return *payload* as JSON of at most *max_bytes* bytes, or raise PayloadError."""
    text = dump_json(payload)
    if text.strip() == "null":
        raise PayloadError("a job needs a payload: None (JSON null) is none", problems=[("$", "is null")])
    return check_size("payload", text, max_bytes)


def check_size(what: str, json_text: str, max_bytes: int) -> str:
    """Return *json_text*, which is *what*, if it has at most *max_bytes* bytes, or raise PayloadError."""
    size = len(json_text) if json_text.isascii() else len(json_text.encode())
    if size > max_bytes:
        reason = f"has {size:,} bytes as JSON"
        raise PayloadError(
            f"the {what} {reason}, but {max_bytes:,} are the limit: store it elsewhere and pass on where it is",
            problems=[("$", reason)],
        )
    return json_text
