"""One migration for each SQL file of the queue."""
