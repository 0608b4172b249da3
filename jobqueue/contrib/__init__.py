"""jobqueue as a part of frameworks: each module is imported by those who use it, and by nobody else."""
