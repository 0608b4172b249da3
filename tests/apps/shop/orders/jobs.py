"""What is done after a request."""

import os
import threading

from django.db import transaction

import jobqueue
from orders.models import Order, Shipment


@jobqueue.handler("ship", atomic="default")
def ship(order_id: int) -> int:
    """Ship an order, together with the end of its job."""
    order = Order.objects.select_for_update().get(pk=order_id)
    order.is_shipped = True
    order.save()
    Shipment.objects.create(order=order, pid=os.getpid())
    return os.getpid()


@jobqueue.handler("hold")
def hold(ctx: jobqueue.JobContext, *, order_id: int, seconds: float) -> int:
    """Take so long, and then ship; who takes it up from a process that was killed ships at once."""
    threading.Event().wait(0 if ctx.job.rescue_count else seconds)
    with transaction.atomic():
        return ship(order_id)
