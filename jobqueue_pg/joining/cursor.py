"""Cursors on connections of psycopg that are the caller's."""

from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap
from psycopg.types.datetime import TimestamptzLoader


class CallersCursor(psycopg.RawCursor[Any]):
    """A cursor whose values are those of our own, whatever the application has made of its connection's.

    Django, for one, has jsonb come as text, and moments without a time zone where the settings say so.
    """

    @property
    def adapters(self) -> AdaptersMap:
        """What makes values of the database's."""
        return _ADAPTERS


class _MomentLoader(TimestamptzLoader):
    """Makes moments UTC, whatever the session's time zone is."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


_ADAPTERS: Final = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_loader("timestamptz", _MomentLoader)
