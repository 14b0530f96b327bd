"""The exception that the lab's commands print as one line."""


class LabError(Exception):
    """What is wrong and what to do about it, in one line."""
