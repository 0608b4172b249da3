"""A kiosk on Flask and Flask-SQLAlchemy: orders come in by requests, and are shipped by jobs of the same processes.

The environment says where its database is (KIOSK_DATABASE), and what else the application is to be configured with
(FLASK_*, as JSON).
"""

import os
import threading

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column

import jobqueue
from jobqueue.contrib.flask import JobQueue

db = SQLAlchemy()
queue = JobQueue(db=db)


class Order(db.Model):
    """What somebody wants, and who has shipped it how often."""

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]
    shipped: Mapped[int] = mapped_column(default=0)


class Shipping(db.Model):
    """One run of the job that ships an order."""

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    pid: Mapped[int]


@jobqueue.handler("ship", atomic="session")
def ship(order: int) -> int:
    """Ship an order, in one transaction with the end of the job."""
    db.get_or_404(Order, order).shipped += 1
    return os.getpid()


@jobqueue.handler("pack")
def pack(order: int, *, seconds: float) -> int:
    """Take a while; note at once who does it."""
    db.session.add(Shipping(order_id=order, pid=os.getpid()))
    db.session.commit()
    threading.Event().wait(seconds)
    return os.getpid()


def create_app() -> Flask:
    """Make the application."""
    app = Flask("kiosk")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["KIOSK_DATABASE"]
    app.config["JOBQUEUE_THREADS"] = 2
    app.config.from_prefixed_env()
    db.init_app(app)
    queue.init_app(app)

    @app.post("/orders/<note>/<end>")
    def order(note: str, end: str) -> dict[str, object]:
        ordered = Order(note=note)
        db.session.add(ordered)
        db.session.flush()
        job = ship.enqueue(ordered.id)
        if end == "commit":
            db.session.commit()
        elif end == "rollback":
            db.session.rollback()
        elif end == "fail":
            raise ZeroDivisionError
        return {"job": str(job.id), "pid": os.getpid()}

    @app.post("/pack/<int:number>/<float:seconds>")
    def pack_orders(number: int, seconds: float) -> dict[str, object]:
        for order in range(number):
            pack.enqueue({"order": order, "seconds": seconds})
        db.session.commit()
        return {"pid": os.getpid()}

    @app.get("/threads")
    def threads() -> dict[str, object]:
        return {"pid": os.getpid(), "threads": [thread.name for thread in threading.enumerate()]}

    return app
