"""``python -m jobqueue.cli``: the command, where it is not on the path."""

from jobqueue.cli import main

if __name__ == "__main__":
    main()
