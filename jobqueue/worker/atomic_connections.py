"""The connections for the atomic handlers of one desk, as those who claim jobs count them."""

from collections.abc import Iterable

from jobqueue.models import Fence


class AtomicConnections:
    """Which are taken by claimed jobs, and how many are reserved for what trips may bring.

    Called under the dispatcher's lock.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = set[Fence]()
        self._num_reserved = 0

    @property
    def num_free(self) -> int:
        """How many jobs may be claimed that might be atomic."""
        return self._number - len(self._taken) - self._num_reserved

    def reserve(self, number: int) -> None:
        """Keep some for what a trip may bring."""
        self._num_reserved += number

    def take(self, fences: Iterable[Fence], *, reserved: int) -> None:
        """Give them to what a trip has brought, for which so many were *reserved*."""
        self._taken.update(fences)
        self._num_reserved -= reserved

    def give_back(self, fence: Fence) -> int:
        """Note that a claimed job does not need its connection any more; return how many connections that has freed."""
        if not self._taken:
            return 0
        before = len(self._taken)
        self._taken.discard(fence)
        return before - len(self._taken)
