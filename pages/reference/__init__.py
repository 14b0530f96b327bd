"""The reference pages, made from what they describe: commands, operations, facts, deploys, data, variables.

`make reference` writes them; `tests/pages/test_reference.py` fails for one that is not as the code would make it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from nixherd.overview.schema import schema
from pages.reference import commands, data, functions

DIRECTORY = PurePosixPath("docs/reference")
PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands.main_page,
    **{f"{name}.md": make for name, make in commands.group_pages().items()},
    "operations.md": functions.operations_page,
    "facts.md": functions.facts_page,
    "deploys.md": functions.deploys_page,
    "data.md": data.page,
    "environment.md": data.environment_page,
    "status.schema.json": lambda: json.dumps(schema(), indent=2) + "\n",
}
"""by file below `DIRECTORY`: its text"""
