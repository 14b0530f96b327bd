"""The gate's results as GitHub Actions' workflow commands, which it shows beside the lines that they are about.

Source: GitHub's "Workflow commands for GitHub Actions", and @actions/core's command.ts for what is escaped.
"""

from collections.abc import Iterator, Mapping, Sequence

from nixherd.display import visible
from nixherd.findings import Severity
from nixherd.gate.results import Result, Status

_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def lines(results: Sequence[Result], prefix: str = "") -> Iterator[str]:
    """A command for each finding, and one for each tool of which nothing is known. `prefix` as in SARIF."""
    for result in results:
        for found in result.findings:
            place = {"file": f"{prefix}{found.file}" if found.file else None, "line": found.line, "col": found.column}
            level = "warning" if found.severity is Severity.WARNING else "error"
            yield _command(level, {**place, "title": result.tool}, found.message)
        if result.status in (Status.UNKNOWN, Status.MISSING):
            yield _command("error", {"title": result.tool}, f"{result.status}: {result.reason}")
        elif result.status is Status.NOT_RUN:
            yield _command("notice", {"title": result.tool}, f"not run: {result.note}")


def _command(level: str, properties: Mapping[str, object], text: str) -> str:
    said = ",".join(f"{name}={_escaped(str(each), _PROPERTY)}" for name, each in properties.items() if each is not None)
    return f"::{level} {said}::{_escaped(text, _DATA)}"


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in visible(text))
