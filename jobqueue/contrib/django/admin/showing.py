"""How values are shown: whatever jobs hold is text to be read, and never markup."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.contrib.admin.utils import display_for_value, quote
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobqueue.errors import PayloadError
from jobqueue.models import AttemptError
from jobqueue.payload import load_json

NOTHING: Final = "-"
_LONGEST_LINE: Final = 100


def state_badge(state: str) -> SafeString:
    """Show a state, by a class of its own."""
    return format_html('<span class="jobqueue-state jobqueue-{}">{}</span>', state, state)


def first_line(text: str | None) -> str:
    """Show the beginning of a long text."""
    line = (text or "").partition("\n")[0]
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def moment(at: datetime | None) -> str:
    """Show a moment as Django does, in the time zone of the project."""
    return NOTHING if at is None else str(display_for_value(at, NOTHING))


def block(text: str | None) -> SafeString | str:
    """Show a text as it is."""
    return format_html('<pre class="jobqueue-text">{}</pre>', text) if text else NOTHING


def pretty(json_text: str | None) -> SafeString | str:
    """Show JSON with its structure; as it is, when Python cannot hold it."""
    if json_text is None:
        return NOTHING
    try:
        return block(json.dumps(load_json(json_text), indent=2, ensure_ascii=False))
    except (PayloadError, ValueError, RecursionError):
        return block(json_text)


def attempts_table(attempts: Iterable[AttemptError]) -> SafeString | str:
    """Show how each run that failed went, the newest first: two lines for each, as tracebacks need the whole width."""
    rows = [
        (
            each.run,
            moment(each.started_at),
            moment(each.at),
            each.claimed_by or NOTHING,
            first_line(f"{each.error_type}: {each.error_msg}"),
            each.traceback or each.error_msg,
        )
        for each in reversed(list(attempts))
    ]
    if not rows:
        return NOTHING
    shown = format_html_join(
        "",
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"
        '<tr><td colspan="4"><details><summary>{}</summary><pre>{}</pre></details></td></tr>',
        rows,
    )
    return format_html(
        '<table class="jobqueue-attempts"><thead><tr><th>Run</th><th>Started</th><th>Failed</th><th>Worker</th>'
        "</tr></thead><tbody>{}</tbody></table>",
        shown,
    )


def progress_bar(done: int, of: int) -> SafeString:
    """Show how many of a bundle's members have stopped."""
    return format_html('<progress value="{}" max="{}"></progress> {} of {}', done, max(of, 1), done, of)


def link_to(model: str, id: UUID | str, text: str = "") -> SafeString:
    """Link to the page of something in the queue."""
    return format_html(
        '<a href="{}">{}</a>', reverse(f"admin:jobqueue_{model}_change", args=[quote(str(id))]), text or id
    )


def link_to_jobs(text: str, **filters: Any) -> SafeString:
    """Link to the list of those jobs that are what *filters* say."""
    return format_html('<a href="{}">{}</a>', reverse("admin:jobqueue_job_changelist", query=filters), text)


def side_by_side(*parts: SafeString) -> SafeString:
    """Show several things in a line."""
    return format_html_join(" · ", "{}", [(part,) for part in parts])
