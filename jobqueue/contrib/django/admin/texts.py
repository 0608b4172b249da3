"""The JSON of a row as the database spells it: what Python cannot hold is shown all the same."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from django.db.models import TextField
from django.db.models.functions import Cast

from jobqueue.errors import PayloadError
from jobqueue.models import AttemptError
from jobqueue.payload import load_json, structure

COLUMNS: Final = ("payload", "result", "error_data", "attempt_errors", "progress", "retry_policy")


def texts_of(row: Any) -> Mapping[str, str | None]:
    """Return the columns of JSON, read once for a page."""
    read: dict[str, str | None] | None = getattr(row, "_jobqueue_texts", None)
    if read is None:
        texts = {f"{name}_text": Cast(name, TextField()) for name in COLUMNS}
        read = cast("dict[str, str | None]", row.__class__.objects.filter(pk=row.pk).values(**texts).first() or {})
        row._jobqueue_texts = read  # noqa: SLF001 - a row that was made for this page
    return {name: read.get(f"{name}_text") for name in COLUMNS}


def attempts_of(row: Any) -> Sequence[AttemptError]:
    """Return how the runs that failed went, as far as that can be read."""
    try:
        text = texts_of(row)["attempt_errors"]
        attempts: Sequence[AttemptError] = () if text is None else structure(load_json(text), tuple[AttemptError, ...])
    except PayloadError:
        return ()
    return attempts


def error_data_of(row: Any) -> str | None:
    """Return what else is told of the error that a job shows, as the database spells it where Python cannot hold it."""
    text = texts_of(row)["error_data"]
    try:
        data = load_json(text or "null")
    except PayloadError:
        return text
    if not isinstance(data, dict):
        return text
    rest = {key: value for key, value in cast("dict[str, object]", data).items() if key != "traceback"}
    return json.dumps(rest, ensure_ascii=False) if rest else None


def traceback_of(row: Any) -> str | None:
    """Return the traceback of the error that a job shows."""
    try:
        data = load_json(texts_of(row)["error_data"] or "null")
    except PayloadError:
        return None
    found = cast("dict[str, object]", data).get("traceback") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None
