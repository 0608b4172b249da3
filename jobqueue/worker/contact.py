"""Whether the database answers the threads of a pool: what is logged once, and what all of them go by."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from jobqueue.errors import UnavailableError
from jobqueue.health import Vital

logger = logging.getLogger(__name__)


class Contact:
    """The pool's contact to the database, as its trips, beats and maintenance find it."""

    def __init__(self, vital: Vital, dead_for: timedelta) -> None:
        self._vital = vital
        self._dead_for = dead_for.total_seconds()
        self._began_at = self._heard_at = time.monotonic()
        self._asked_at: list[float] = []  # when the calls that are still out began

    @contextmanager
    def watched(self) -> Generator[None]:
        """Note how a call of the database within the block goes; errors pass through."""
        asked_at = time.monotonic()
        self._asked_at.append(asked_at)
        try:
            yield
        except UnavailableError as error:
            # When others were answered since it began, it may be the last of them to find an old connection broken.
            if self._heard_at < asked_at and self._vital.failed(error):
                logger.warning("the database does not answer, trying again: %s", error)
            raise
        finally:
            self._asked_at.remove(asked_at)
        self._heard_at = time.monotonic()
        if self._vital.succeeded():
            logger.warning("the database answers again")

    @property
    def is_dead(self) -> bool:
        """Whether there was no answer for so long that others may have taken our claims away."""
        now = time.monotonic()
        if now - self._heard_at < self._dead_for:
            return False
        return self._vital.is_down or now - min(self._asked_at, default=now) >= self._dead_for

    @property
    def is_steady(self) -> bool:
        """Whether there was contact without a break for long enough to judge the silence of others."""
        return min(self._vital.up_for(), time.monotonic() - self._began_at) >= self._dead_for
