"""What is said for all hosts in pyinfra's group data, for those who need it before pyinfra has an inventory."""

import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def said_for_all(name: str, directories: Iterable[Path]) -> Iterator[Any]:
    """What `all.py` in each of the directories says, in their order; nothing where it says nothing."""
    for directory in directories:
        if (directory / "all.py").is_file():
            value = runpy.run_path(str(directory / "all.py")).get(name)
            if value is not None:
                yield value
