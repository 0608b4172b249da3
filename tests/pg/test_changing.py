"""What is told to an integration of the calls that change rows on a connection of their caller."""

import jobqueue_pg


def test_the_connection_that_is_given(queue, other_db):
    """It is told, too, for who asks whose transaction it is."""
    told = []
    with jobqueue_pg.connect(queue, origin="tests") as service:
        service.watch_changes(lambda *what: told.append(what))
        service.enqueue("t", 1, connection=other_db)
    assert told == [("enqueue", other_db)]
