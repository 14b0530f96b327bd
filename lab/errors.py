"""The one exception that the lab's commands show as a line."""


class LabError(Exception):
    """What is wrong and what to do about it, in one line."""
