"""Payloads: Python values to JSON and back, and what neither Python nor PostgreSQL can hold."""

import enum
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import attrs
import pytest

from jobqueue.errors import InvalidJobError, PayloadError
from jobqueue.payload import RawJSON, converter, dump_json, job_type_of, load_json, structure

BACKSLASH = "\\"
NUL_ESCAPE = rf"{BACKSLASH}u0000"
ID = UUID("0192f3a1-0000-7000-8000-000000000001")


class Cents(int):
    """An application's own type, for which it has registered a hook."""


class Secret(str):
    __slots__ = ()


converter.register_unstructure_hook(Cents, lambda cents: f"{cents / 100:.2f}")
converter.register_unstructure_hook(Secret, lambda _: "***")


class Color(enum.Enum):
    RED = "red"


@attrs.frozen
class Line:
    article: str
    price: Decimal


@attrs.frozen
class Order:
    id: UUID
    lines: list[Line]
    color: Color = Color.RED
    note: str | None = None


@dataclass
class Address:
    city: str


@attrs.frozen
class Named:
    __job_type__ = "named-by-itself"


@attrs.frozen
class Strict:
    size: int = attrs.field(validator=attrs.validators.gt(0))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", '"text"'),
        ('{"a": 1}', r'"{\"a\": 1}"'),
        ("ünïcode 🎉", '"ünïcode 🎉"'),
        (1, "1"),
        (10**4299, "1" + "0" * 4299),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        ((1, 2), "[1,2]"),
        ({1}, "[1]"),
        ({"a": {"b": []}}, '{"a":{"b":[]}}'),
        (ID, f'"{ID}"'),
        ({ID: 1}, f'{{"{ID}":1}}'),
        (Color.RED, '"red"'),
        (Decimal("1.10"), '"1.10"'),
        (date(2024, 2, 29), '"2024-02-29"'),
        (time(12, 30), '"12:30:00"'),
        (datetime(2024, 2, 29, tzinfo=UTC), '"2024-02-29T00:00:00+00:00"'),
        (timedelta(minutes=1), "60.0"),
        (Address("Vienna"), '{"city":"Vienna"}'),
        (
            Order(ID, [Line("book", Decimal(9))]),
            f'{{"id":"{ID}","lines":[{{"article":"book","price":"9"}}],"color":"red","note":null}}',
        ),
        (RawJSON(' {"a" : 1} '), ' {"a" : 1} '),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_spelled_as_json(value, text):
    """Each kind of value has one spelling; a str is a JSON string even if it looks like JSON, RawJSON is kept."""
    assert dump_json(value) == text


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "$"),
        ({"a": [1, float("inf")]}, "$.a[1]"),
        ([-float("inf")], "$[0]"),
        ({"a": object()}, "$.a"),
        ([[{"b": {(1, 2): 3}}]], "$[0][0].b"),
        (Order(ID, [Line("book", Decimal(1)), Line(object(), Decimal(1))]), "$.lines[1].article"),
        (Address(object()), "$.city"),
        (10**4300, "$"),
        (lambda: None, "$"),
    ],
    ids=["nan", "inf", "-inf", "object", "tuple as key", "in attrs", "in a dataclass", "4301 digits", "function"],
)
def test_what_has_no_json_form_is_refused_by_its_place(value, path):
    """A value without a JSON form is refused, and the problem says where in the payload it is."""
    with pytest.raises(PayloadError) as caught:
        dump_json(value)
    assert caught.value.field == "payload"
    assert [place for place, _ in caught.value.problems] == [path]


def test_deep_nesting_is_refused_not_crashed_on():
    """Nesting that the interpreter cannot follow is a PayloadError, as is a list within itself."""
    endless = []
    endless.append(endless)
    for value in (nested(100_000), endless):
        with pytest.raises(PayloadError, match="cannot be stored as JSON"):
            dump_json(value)
    assert dump_json(nested(100)) == "[" * 101 + "]" * 101


@pytest.mark.parametrize("text", ["\0", "a\0b", f"{BACKSLASH}\0", f"{BACKSLASH * 2}\0"])
@pytest.mark.parametrize("wrapped", [str, lambda text: [{"k": text}], lambda text: {text: 1}])
def test_nul_is_refused(text, wrapped):
    """The character NUL is refused in every string, keys too, whatever backslashes stand before it."""
    with pytest.raises(PayloadError, match="NUL"):
        dump_json(wrapped(text))


@pytest.mark.parametrize("text", [NUL_ESCAPE, BACKSLASH + NUL_ESCAPE, "u0000"])
def test_what_only_looks_like_nul_is_kept(text):
    """A backslash before u0000 is no NUL."""
    assert json.loads(dump_json(text)) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"], ids=["high", "low"])
@pytest.mark.parametrize("wrapped", [str, lambda text: [text], lambda text: {text: 1}])
def test_lone_surrogates_are_refused(text, wrapped):
    """Half of a surrogate pair is refused in every string, keys too."""
    with pytest.raises(PayloadError, match="surrogate"):
        dump_json(wrapped(text))


@pytest.mark.parametrize(
    "text",
    ["0", '"a"', b'{"a": [1]}', "[1e3, -1.5E-3]", r'"\ud83d\ude00"', r'"\\u0000"', "1e131071", "1e-16383", "9" * 5000],
    ids=lambda text: str(text)[:12],
)
def test_raw_json_keeps_its_text(text):
    """RawJSON is stored as it was given, as str or bytes, whatever Python could make of it."""
    assert dump_json(RawJSON(text)) == (text.decode() if isinstance(text, bytes) else text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{'a': 1}", "NaN", "[Infinity]", "-Infinity", "01", "[1,]", "1e131072", "1e-16384", "1e200000"),
        *("9" * 131_073, "0." + "1" * 16_384, f'"{NUL_ESCAPE}"', r'"\ud800"', '"\ud800"', "[" * 100_000, 5, None),
    ],
    ids=lambda text: str(text)[:12].encode("ascii", "backslashreplace").decode(),
)
def test_raw_json_refuses_what_postgresql_would(text):
    """RawJSON refuses what is not JSON, and numbers and characters that PostgreSQL cannot hold."""
    with pytest.raises(PayloadError) as caught:
        RawJSON(text)
    assert caught.value.problems


def test_raw_json_refuses_bytes_that_are_not_utf8():
    """Bytes that are no text are no JSON either."""
    with pytest.raises(PayloadError, match="not UTF-8"):
        RawJSON(b'"\xff"')


@pytest.mark.parametrize("text", ["1", '{"a":[1.5,null]}', '"\\u00e9"'])
def test_stored_json_is_read(text):
    """What the database holds becomes a plain value."""
    assert load_json(text) == json.loads(text)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000 + "]" * 100_000, "{"], ids=lambda text: text[:4])
def test_what_python_cannot_hold_is_a_payload_error(text):
    """A 5,000-digit integer or very deep nesting in a stored payload is an error of that payload alone."""
    with pytest.raises(PayloadError, match="stored JSON cannot be read"):
        load_json(text)


@pytest.mark.parametrize(
    "value",
    [
        ID,
        Color.RED,
        Decimal("1.10"),
        date(2024, 2, 29),
        time(12, 30, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=UTC),
        timedelta(days=3, microseconds=1),
        b"bytes",
        Address("Vienna"),
        Order(ID, [Line("book", Decimal("9.90"))], note="soon"),
        Strict(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_as_they_were(value):
    """What is spelled as JSON and read as its own class is the value that it was."""
    assert structure(load_json(dump_json(value)), type(value)) == value


@pytest.mark.parametrize(
    ("value", "into", "paths"),
    [
        ({}, Address, ["$.city"]),
        ({"id": "no", "lines": [{"article": "book", "price": "?"}]}, Order, ["$.id", "$.lines[0].price"]),
        ("blue", Color, ["$"]),
        ({"size": 0}, Strict, ["$"]),
        ([1, "b", "c"], list[int], ["$[1]", "$[2]"]),
        ("x", int | None, ["$"]),
    ],
)
def test_every_misfit_has_a_path(value, into, paths):
    """What does not fit its class is refused, with the place of each problem."""
    with pytest.raises(PayloadError, match="does not fit") as caught:
        structure(value, into)
    assert [path for path, _ in caught.value.problems] == paths
    assert all(reason for _, reason in caught.value.problems)


@pytest.mark.parametrize("kind", [Order, Address])
def test_a_job_type_is_the_full_name_of_a_payload_class(kind):
    """An attrs or dataclass type names its jobs by module and name, asked by class or by instance."""
    assert job_type_of(kind) == f"{kind.__module__}.{kind.__qualname__}"
    assert job_type_of(Address("Vienna")) == job_type_of(Address)


def test_a_payload_class_may_name_its_jobs():
    """``__job_type__`` goes before the name of the class."""
    assert job_type_of(Named) == job_type_of(Named()) == "named-by-itself"


@pytest.mark.parametrize("value", [{}, "text", 5, None, dict, Color.RED])
def test_other_values_tell_no_job_type(value):
    """The name of any other class says nothing of the work."""
    with pytest.raises(InvalidJobError, match="name the type") as caught:
        job_type_of(value)
    assert caught.value.field == "type"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Cents(150), '"1.50"'),
        (Secret("x"), '"***"'),
        ({"price": Cents(150)}, '{"price":"1.50"}'),
        ({Secret("x"): 1}, '{"***":1}'),
        ({"a": 1, "b": None, "c": "d", "e": 1.5, "f": True}, '{"a":1,"b":null,"c":"d","e":1.5,"f":true}'),
        ({1: 2}, '{"1":2}'),
        ({Color.RED: Color.RED}, '{"red":"red"}'),
        ({}, "{}"),
    ],
)
def test_hooks_of_applications_come_first(value, text):
    """What is derived from a type of JSON is spelled as its own hook says; what is of such a type, as it is."""
    assert dump_json(value) == text
