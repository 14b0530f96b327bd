"""pyinfra as a child process: run to its end, followed by its journal or its output, and reported."""

import json
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import FAILURES, Exit, FleetError, Refused, Undecided, Usage
from nixherd.base.files import write_whole
from nixherd.base.process import Completed, interrupt_all, run
from nixherd.base.terminal import say, say_text, visible_values, worded
from nixherd.cli.following import Heard, follow
from nixherd.cli.front import Front
from nixherd.cli.recording import REPORT, command_name
from nixherd.deploy.history import new_directory, person, record
from nixherd.deploy.hooks import ON_FAILURE, ON_SUCCESS, Hooks
from nixherd.deploy.numbers import number_of
from nixherd.deploy.options import Goal
from nixherd.deploy.report import Journal, entries
from nixherd.fleet.place import PROJECT, project_data, write_tree_data

PARALLEL = 100  # hosts at a time; builds and copies have bounds of their own
LOG = "pyinfra.log"
_ERROR = "--> pyinfra error: "
_NO_HOSTS = "No hosts remaining!"  # why each of them failed is in the report
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|--> An (internal )?exception occurred")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
Names = Sequence[str]


@dataclass(frozen=True)
class Ended:
    """A run of pyinfra that is over. `interrupted`: by us, with Ctrl-C; `entries` are those of its journal."""

    directory: Path
    output: Completed
    interrupted: bool
    entries: Sequence[Mapping[str, Any]]

    @property
    def number(self) -> int | None:
        return number_of(self.directory)

    @property
    def text(self) -> str:
        return self.output.stdout + self.output.stderr

    def _tell_hooks(self, status: int, document: Mapping[str, Any]) -> None:
        """A hook that fails is a line, and changes nothing of what became of the machines."""
        hosts = [{each: row.get(each) for each in ("host", "outcome", "why")} for row in document.get("hosts", ())]
        told = {"run": self.directory.name, "exit": status, "report": str(self.directory / REPORT), "hosts": hosts}
        told |= {each: document.get(each) for each in ("fleet", "summary", "deploys", "goal")}
        try:
            failed = Hooks.of_operator().tell(ON_FAILURE if status else ON_SUCCESS, told)
        except FleetError as error:
            failed = [str(error)]
        for line in failed:
            say(line, err=True)

    @property
    def failure(self) -> FleetError:
        """Why it ended before the first host's turn, by its last words and its status."""
        kind = {int(Exit.USAGE): Usage, int(Exit.REFUSED): Refused}.get(self.output.status, FleetError)
        return kind(_last_words(self.output, self.directory / LOG))

    def not_begun(self) -> int:
        """Say why pyinfra ended before it began, and keep its output; return its status."""
        say_text(_last_words(self.output, self.directory / LOG), err=True)
        despite(lambda: write_whole(self.directory / LOG, self.text), str(self.directory))
        return self.output.status or int(Exit.FAILED)

    def report(
        self, status: int, document: Mapping[str, Any], show: Callable[[dict[str, Any]], None], *, asks: bool = False
    ) -> int:
        """Keep the run's end, report and output in its directory, show the report, and tell the operator's hooks, but
        of a run that only `asks`, or plans; return the status.
        """
        status = int(Exit.INTERRUPTED if self.interrupted else status)
        end: dict[str, Any] = {"exit": status, "interrupted": self.interrupted, "pyinfra": self.output.status}
        context = click.get_current_context(silent=True)
        document = {**document, "report": self.number, "command": context.info_name if context else None}

        def keep() -> None:
            write_whole(self.directory / LOG, self.text)
            journal = Journal(self.directory)
            journal.note("done", **end)
            journal.close()
            text = json.dumps(visible_values({**document, **end}), indent=2, ensure_ascii=False)
            write_whole(self.directory / REPORT, f"{text}\n")
            record(self.directory)

        if despite(keep, str(self.directory)):
            say(f"report{f' {self.number}' if self.number else ''}: {self.directory / REPORT}", err=True)
        is_shown = despite(lambda: show({**document, **end}), "stdout")
        if not (asks or document.get("dry") or document.get("goal") == Goal.DRY_ACTIVATE):
            self._tell_hooks(status, document)
        return status or int(Exit.DONE if is_shown else Exit.FAILED)


def run_deploys(
    front: Front,
    files: Names,
    hosts: Names,
    data: Names,
    *,
    dry: bool,
    exclude: Names = (),
    asks: bool = False,
    keep: bool = True,
    **how: Any,
) -> Ended:
    """Run deploy files for hosts and groups, or all hosts, to their end; `how` is passed to `run_pyinfra`.

    What only `asks` is not in the history, and need not `keep` its journal: then it has no number, and takes no earlier
    run's place.
    """
    directory = new_directory() if keep else front.run.directory / "journal"
    journal = Journal(directory)
    journal.note("command", command=command_name(), who=person(), fleet=str(front.directory), asks=asks or dry)
    journal.close()
    words = ["--dry" if dry else "-y", "--parallel", str(PARALLEL), "inventory.py", *files]
    options = [("--limit", host) for host in hosts] + [("--exclude", host) for host in exclude]
    options += [("--data", pair) for pair in (f"journal={directory}", *data)]
    beside = (write_tree_data(front.tree_data, directory), *project_data(front.directory))
    options += [("--group-data", str(each)) for each in beside if each]
    output, interrupted = run_pyinfra(front, [*words, *chain.from_iterable(options)], directory, **how)
    return Ended(directory, output, interrupted, list(entries(directory)))


def despite(write: Callable[[], object], what: str) -> bool:
    """Write what became of machines; whether that succeeded. A failure is a line on stderr, and stops nothing."""
    try:
        write()
    except FAILURES as error:
        say(f"{what}: not all of this run could be written there: {worded(error, what)}", err=True)
        return False
    return True


def run_pyinfra(
    front: Front,
    words: Sequence[str],
    directory: Path,
    *,
    input: str | None = None,
    stream: Callable[[str], None] | None = None,
    meanwhile: str = "machines that are being activated decide by themselves",
) -> tuple[Completed, bool]:
    """Run pyinfra on this fleet to its end; return its output, and whether we were interrupted meanwhile.

    `stream` is given each line of its output; without it, the journal in `directory` is followed. `meanwhile` says
    what goes on after an interruption.
    """
    argv = [*_program(), *words]
    env = {"FLEET": str(front.directory), "PROXMOX_TOKEN_FILE": str(front.token_path)}
    env |= {"NO_COLOR": "1", "PYINFRA_PROGRESS": "off"}
    ended: list[Completed | FleetError] = []

    heard = Heard(stream) if stream else None

    def child() -> None:
        try:
            ended.append(run(argv, cwd=PROJECT, env=env, check=False, input=input, stream=heard))
        except FAILURES as error:
            ended.append(worded(error, "running pyinfra"))
        finally:
            over.set()

    over = threading.Event()  # an interrupted join() returns before its thread ends (python/cpython#90882)
    threading.Thread(target=child).start()
    interrupted, is_seen = False, True
    following = follow(directory) if heard is None else heard.followed()
    with following as look:
        while not over.is_set():
            try:
                is_seen = is_seen and despite(look, "stderr")
                over.wait(0.1)
            except KeyboardInterrupt:
                if not interrupted:
                    say(f"Interrupted; {meanwhile}", err=True)
                interrupted = True
                interrupt_all()
        if is_seen:
            despite(look, "stderr")
    if not ended:  # an exception outside of FAILURES ended the thread
        raise Undecided(f"how pyinfra ended was not seen; its journal is in {directory}")
    if isinstance(ended[0], FleetError):
        raise ended[0]
    return ended[0], interrupted


def _program() -> list[str]:
    """The pyinfra that is installed with us; without a program beside our Python, as on NixOS, its modules."""
    beside = Path(sys.executable).with_name("pyinfra")
    if beside.exists():
        return [str(beside)]
    script = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.argv[0] = 'pyinfra'; from pyinfra_cli.main import main; main()"
    )
    return [sys.executable, "-c", script]


def own_error(done: Completed) -> str | None:
    """Give pyinfra's own error, or its traceback's last line; None where its output has neither."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines()]
    if any(_TRACEBACK.match(line) for line in lines):
        raised = [line for line in lines if _EXCEPTION.match(line)] or lines[-1:]
        return f"pyinfra: {raised[-1]}"
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR) and not line.endswith(_NO_HOSTS)]
    return f"pyinfra: {errors[-1]}" if errors else None


def _last_words(done: Completed, log: Path) -> str:
    """Say why pyinfra ended before it began: its own error, else its output without its progress."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("-->")]
    return own_error(done) or "\n".join(lines) or f"pyinfra ended with status {done.status}; its output: {log}"
