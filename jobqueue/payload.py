"""What crosses between Python and the JSON in the database: one converter, one spelling of JSON, one set of limits."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import attrs
import cattrs
from cattrs.preconf.json import make_converter

from jobqueue.errors import InvalidJobError, PayloadError

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""The longest payload as UTF-8 JSON text, unless a service is connected with another limit."""

# PostgreSQL keeps JSON numbers as numeric, which ends here. Source: PostgreSQL manual, section 8.1.
_MAX_DIGITS_BEFORE_POINT: Final = 131_072
_MAX_DIGITS_AFTER_POINT: Final = 16_383

_ESCAPED_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# Unbound methods and not str(), which would let a value of any type pass for one of these.
_TEXT_FORMS: Final[Sequence[tuple[type, Callable[[Any], str], Callable[[Any], object]]]] = [
    (UUID, UUID.__str__, UUID),
    (Decimal, Decimal.__str__, Decimal),
    (datetime, datetime.isoformat, datetime.fromisoformat),
    (date, date.isoformat, date.fromisoformat),
    (time, time.isoformat, time.fromisoformat),
]


def _make_converter() -> cattrs.Converter:
    made = make_converter()
    for kind, write, read in _TEXT_FORMS:
        made.register_unstructure_hook(kind, write)
        made.register_structure_hook(kind, _reader(read))
    for plain, accepted in {str: (str,), bool: (bool,), int: (int,), float: (float, int)}.items():
        made.register_structure_hook(plain, _checker(plain, accepted))
    made.register_unstructure_hook(timedelta, timedelta.total_seconds)
    made.register_structure_hook(timedelta, _reader(lambda seconds: timedelta(seconds=seconds)))
    return made


def _reader(read: Callable[[Any], object]) -> Callable[[Any, Any], object]:
    return lambda value, _: read(value)


def _checker(wanted: type, accepted: tuple[type, ...]) -> Callable[[Any, Any], object]:
    """Take JSON as it is: cattrs would make of null the text "None", and of "no" the truth."""

    def check(value: object, _: object) -> object:
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
            raise TypeError(f"{type(value).__name__} where {wanted.__name__} is expected")
        return wanted(value)

    return check


converter: Final = _make_converter()
"""The one cattrs converter. Register hooks for an application's own types on it when those are imported."""


def _decoded(text: str | bytes) -> str:
    if not isinstance(text, bytes):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(
            f"RawJSON was given bytes that are not UTF-8: {error}", problems=[("$", str(error))]
        ) from error


@attrs.frozen
class RawJSON:
    """JSON text to be stored as the value that it spells; a plain str is stored as a JSON string instead.

    Raises:
        PayloadError: *text* is not JSON, or is JSON that PostgreSQL cannot hold.
    """

    text: str = attrs.field(converter=_decoded, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            value = json.loads(
                self.text,
                parse_constant=_refuse,
                parse_float=_check_number,
                parse_int=_check_number,
                object_pairs_hook=list,  # which keeps keys that are there twice: the database reads both
            )
            _check_storable(json.dumps(value, ensure_ascii=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"RawJSON was given what is not JSON text: {error}", problems=[("$", str(error))]
            ) from error


converter.register_unstructure_hook(RawJSON, lambda raw: json.loads(raw.text))  # where it is a part of a payload


# Made once: json.dumps() makes an encoder at each call, and json.loads() looks at what it was given first.
_decoder: Final = json.JSONDecoder()
_encoder: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_number(number: str) -> None:
    """Refuse a number that PostgreSQL's numeric cannot hold, without building it."""
    mantissa, _, exponent = number.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    shift = int(exponent or 0)
    if (
        max(len(whole), len(whole) + shift) > _MAX_DIGITS_BEFORE_POINT
        or len(fraction) - shift > _MAX_DIGITS_AFTER_POINT
    ):
        raise ValueError(f"the number {number[:20]}... has more digits than PostgreSQL can hold")


def dump_json(value: object) -> str:
    """Spell *value* as JSON: attrs and dataclass objects, enums, UUIDs, dates, times, decimals, bytes, collections.

    Raises:
        PayloadError: *value* has no JSON form, or one that PostgreSQL refuses (NaN, infinity, NUL, half a surrogate
            pair); ``problems`` names the place.
    """
    try:
        return _spell(value)
    except Exception as error:  # an application's own hook may raise anything
        path = _path_to_problem(value)
        raise PayloadError(
            f"this {type(value).__qualname__} cannot be stored as JSON, because of {path}: {error}",
            problems=[(path, str(error))],
        ) from error


def _spell(value: object) -> str:
    if isinstance(value, RawJSON):
        return value.text
    text = _encoder.encode(converter.unstructure(value))
    _check_storable(text)
    return text


def _check_storable(text: str) -> None:
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise ValueError(r"a string contains the character NUL (\u0000), which PostgreSQL cannot store")
    if not text.isascii() and _SURROGATE.search(text):
        raise ValueError("a string contains half of a surrogate pair, which is not text")


def _path_to_problem(value: object, path: str = "$") -> str:
    """Find the innermost part of *value* that cannot be stored by itself."""
    for step, part in _parts_of(value):
        try:
            _spell(part)
        except RecursionError:
            return path
        except Exception:  # noqa: BLE001 - whatever it is, this part is the one to name
            return _path_to_problem(part, path + step)
    return path


def _parts_of(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f".{key}", part) for key, part in cast("dict[object, object]", value).items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(cast("Sequence[object]", value))]
    if attrs.has(type(value)) or is_dataclass(value):
        return [(f".{field}", getattr(value, field)) for field in _field_names(type(value))]
    return []


def _field_names(of: type) -> list[str]:
    if attrs.has(of):
        return [field.name for field in attrs.fields(of)]
    return list(of.__dataclass_fields__)  # type: ignore[attr-defined]


def load_json(text: str) -> Any:
    """Read JSON text that came from the database.

    Raises:
        PayloadError: Python cannot hold it, as an integer of more than 4,300 digits or very deep nesting.
    """
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the stored JSON cannot be read: {error}", problems=[("$", str(error))]) from error


def structure(value: object, into: Any) -> Any:
    """Make of a decoded JSON *value* what the annotation *into* says.

    Raises:
        PayloadError: it does not fit; ``problems`` has a path and a reason for each misfit.
    """
    try:
        return converter.structure(value, into)
    except Exception as error:  # hooks and validators of applications raise what they like
        problems = [_problem(line) for line in cattrs.transform_error(error)]
        wanted = getattr(into, "__qualname__", str(into))
        details = "; ".join(f"{path}: {reason}" for path, reason in problems)
        raise PayloadError(f"the payload does not fit {wanted}: {details}", problems=problems) from error


def _problem(line: str) -> tuple[str, str]:
    reason, _, path = line.rpartition(" @ ")
    return (path, reason) if reason else ("$", line)


def job_type_of(payload_or_class: object) -> str:
    """Name the job type of a payload: its class's own ``__job_type__``, or else ``package.module.QualName``.

    Raises:
        InvalidJobError: it is not an attrs or dataclass type, so that its name would say nothing about the work; or its
            ``__job_type__`` is not a str.
    """
    kind: type[Any] = payload_or_class if isinstance(payload_or_class, type) else type(payload_or_class)
    if not (attrs.has(kind) or is_dataclass(kind)):
        raise InvalidJobError(
            f"a job type is taken from attrs and dataclass types only, not {kind.__qualname__}: name the type",
            field="type",
        )
    # Not an inherited one: the jobs of a subclass would go to the handler of its base.
    named = vars(kind).get("__job_type__", f"{kind.__module__}.{kind.__qualname__}")
    if not isinstance(named, str):
        raise InvalidJobError(f"{kind.__qualname__}.__job_type__ must be a str, not {named!r}", field="type")
    return named
