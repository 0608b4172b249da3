"""What an application holds: the Service over any store and notifier."""

from jobqueue.queue_service.whole import QueueService

__all__ = ["QueueService"]
