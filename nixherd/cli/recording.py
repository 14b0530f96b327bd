"""A run of a command that changes guests or files by itself: noted as pyinfra's runs are, and so in the history."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from nixherd.base.errors import Exit, FleetError, exit_of
from nixherd.base.files import write_whole
from nixherd.base.terminal import line_of, say, visible_values
from nixherd.deploy.history import BRIEF, new_directory, person, record
from nixherd.deploy.numbers import number_of
from nixherd.deploy.report import Journal

REPORT = "report.json"


def command_name() -> str | None:
    """The command that is carried out, as in `vm start`, without what was given to it."""
    context = click.get_current_context(silent=True)
    return context.command_path.partition(" ")[2] if context else None


class Recording:
    """One run, about these `hosts` or guests. Nothing is kept before `begin`; the context's end is the run's.

    `changed` is None where nobody has seen it yet; `failures` are of single hosts, by host why.
    """

    def __init__(self, fleet: Path, hosts: Sequence[str]) -> None:
        self.changed: bool | None = None
        self.failures: dict[str, str] = {}
        self._fleet, self._hosts = fleet, list(hosts)
        self._journal: Journal | None = None

    def begin(self) -> None:
        """Note, before anything is changed, that it begins; once. FleetError where that cannot be written."""
        if self._journal is not None:
            return
        self._journal = journal = Journal(new_directory())
        write_whole(journal.directory / BRIEF, "")
        journal.note("command", command=command_name(), who=person(), fleet=str(self._fleet), asks=False)
        journal.note("run", hosts=self._hosts, steps=[], dry=False, warnings=[])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is None:
            return
        try:
            self._end(self._journal, error)
        except OSError as problem:  # the journal stays, and whoever comes next records it
            say(f"{line_of(problem)}: what this run did is not in the history yet", err=True)

    def _end(self, journal: Journal, error: BaseException | None) -> None:
        outcome, status, why = self._outcome(error)
        rows = [self._row(host, outcome, status, why) for host in self._hosts]
        for row in rows:
            if row["exit"] == Exit.DONE:
                journal.note("made" if self.changed else "nothing", row["host"], text=command_name())
            else:
                journal.note("end", **row, changed=None if row["host"] in self.failures else self.changed)
        end: dict[str, Any] = {"exit": int(status), "interrupted": status is Exit.INTERRUPTED}
        journal.note("done", **end, changed=self.changed, why=why)
        journal.close()
        document = {"command": command_name(), "fleet": str(self._fleet), "summary": why or outcome, **end}
        document |= {"hosts": rows, "report": number_of(journal.directory), "changed": self.changed}
        text = json.dumps(visible_values(document), indent=2, ensure_ascii=False)
        write_whole(journal.directory / REPORT, f"{text}\n")
        record(journal.directory)

    def _outcome(self, error: BaseException | None) -> tuple[str, Exit, str | None]:
        if error is None:
            self.changed = self.changed is not False
            return "done" if self.changed else "unchanged", Exit.DONE, None
        status = exit_of(error, changed=bool(self.changed))
        is_unknown = status in (Exit.UNKNOWN, Exit.INTERRUPTED)
        if is_unknown and not self.changed:
            self.changed = None
        return "unknown" if is_unknown else "failed", status, _why(error)

    def _row(self, host: str, outcome: str, status: Exit, why: str | None) -> dict[str, Any]:
        if host in self.failures:
            return {"host": host, "outcome": "failed", "why": self.failures[host], "exit": int(Exit.FAILED)}
        return {"host": host, "outcome": outcome, "why": why, "exit": int(status)}


def _why(error: BaseException) -> str:
    """In a line; of a fault of ours no more than its kind, as the command's own end keeps it in full."""
    if isinstance(error, FleetError):
        return str(error).partition("\n")[0]
    if isinstance(error, OSError):
        return line_of(error)
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
