"""What can be asked for: each request is one transaction."""

import os
import threading

from django.http import HttpRequest, JsonResponse

from orders.jobs import hold as hold_job
from orders.jobs import ship
from orders.models import Order


def order(_: HttpRequest, item: str) -> JsonResponse:
    """Take an order, to be shipped once this request has committed."""
    taken = Order.objects.create(item=item)
    job = ship.enqueue(taken.pk)
    return JsonResponse({"order": taken.pk, "job": str(job.id), "pid": os.getpid()})


def refuse(_: HttpRequest, item: str) -> JsonResponse:
    """Take an order, and think better of it."""
    ship.enqueue(Order.objects.create(item=item).pk)
    raise ValueError(f"there is no {item}")


def hold(_: HttpRequest, item: str, seconds: str) -> JsonResponse:
    """Take an order that is shipped later."""
    taken = Order.objects.create(item=item)
    job = hold_job.enqueue({"order_id": taken.pk, "seconds": float(seconds)})
    return JsonResponse({"order": taken.pk, "job": str(job.id), "pid": os.getpid()})


def process(_: HttpRequest) -> JsonResponse:
    """Tell which threads this process has."""
    return JsonResponse({"pid": os.getpid(), "threads": sorted(thread.name for thread in threading.enumerate())})
