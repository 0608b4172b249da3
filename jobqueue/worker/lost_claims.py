"""Which claims were found to be lost: each is told of once, whoever finds out first."""

import logging
import threading

from jobqueue.health import Health
from jobqueue.outcomes import Fence

logger = logging.getLogger(__name__)


class LostClaims:
    """Claims of one pool that somebody else has taken away while their jobs were running."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._noted: set[Fence] = set()

    def note(self, fence: Fence, how: str, *, level: int = logging.WARNING) -> None:
        """Log and count a lost claim, unless that was done before."""
        with self._lock:
            if fence in self._noted:
                return
            self._noted.add(fence)
        self._health.count("lost_claims")
        logger.log(
            level,
            "lost the claim %s of %s on job %s: %s; whatever this run led to is not saved",
            fence.claim_id,
            fence.started_at,
            fence.job_id,
            how,
            extra={"job_id": str(fence.job_id)},
        )

    def forget(self, fence: Fence) -> None:
        """Forget a claim whose run has ended and whose outcome was dealt with."""
        with self._lock:
            self._noted.discard(fence)
