"""pyinfra as a child: run to its end, followed by its journal or its output."""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nixherd.cli.front import CHECKOUT, Front
from nixherd.cli.output import console
from nixherd.deploy.journal import NAME, Journal, parsed
from nixherd.display import one_line, visible_values
from nixherd.errors import FAILURES, FleetError, Undecided
from nixherd.faults import worded
from nixherd.files import write_whole
from nixherd.process import Completed, interrupt_all, run
from nixherd.terminal import is_terminal, say

if TYPE_CHECKING:
    from rich.table import Table

PARALLEL = 100  # hosts at a time; what is heavy is bounded where it is done
REPORT, LOG = "report.json", "pyinfra.log"
_ERROR = "--> pyinfra error: "
_NO_HOSTS = "No hosts remaining!"  # why each of them failed is in the report
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|--> An (internal )?exception occurred")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
Look = Callable[[], None]


@contextmanager
def follow(directory: Path) -> Iterator[Look]:
    """Gives what is to be called now and then, and once more in the end."""
    reader = _Reader(directory / NAME)
    if not is_terminal(sys.stderr):
        yield lambda: reader.tell(_line)
        return
    from rich.live import Live

    table = _Table()
    with Live(table.render(), console=console(err=True), refresh_per_second=8, transient=True) as live:

        def look() -> None:
            reader.tell(table.take)
            live.update(table.render())

        yield look


class _Reader:
    """Reads a journal on from where it was."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def tell(self, take: Callable[[Mapping[str, Any]], None]) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for entry in parsed(whole.decode(errors="replace")):
            take(entry)


def _line(entry: Mapping[str, Any]) -> None:
    """What a log of CI shows of an entry."""
    host = entry.get("host")
    match entry["event"]:
        case "stage":
            say(f"{host}: {entry['stage']}", err=True)
        case "said":
            say(f"{f'{host}: ' if host else ''}{entry['text']}", err=True)
        case "end":
            say(f"{host}: {': '.join(filter(None, (entry['outcome'], entry.get('why'))))}", err=True)


class _Table:
    """A row per host: stage, for how long, its last line."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._said = ""

    def take(self, entry: Mapping[str, Any]) -> None:
        host = entry.get("host")
        for each in entry.get("hosts", ()):
            self._rows.setdefault(each, {"stage": "connect", "since": entry["time"], "line": ""})
        if host is None:
            self._said = entry.get("text", self._said)
            return
        row = self._rows.setdefault(host, {"stage": "", "since": entry["time"], "line": ""})
        match entry["event"]:
            case "stage":
                row.update(stage=entry["stage"], since=entry["time"])
                self._said = self._said if entry["stage"] == "build" else ""  # it is over for all
            case "said":
                row["line"] = entry["text"]
            case "end" if "ended" not in row:
                row.update(stage=entry["outcome"], ended=entry["time"], line=entry.get("why") or row["line"])

    def render(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, caption=one_line(self._said) or None, caption_justify="left")
        for column in ("host", "stage", "time", ""):
            table.add_column(column, no_wrap=True)
        for host, row in self._rows.items():
            seconds = row.get("ended", time.time()) - row["since"]
            table.add_row(one_line(host), one_line(row["stage"]), f"{seconds:.0f} s", one_line(row["line"]))
        return table


def keep_report(directory: Path, about: Mapping[str, Any], document: Mapping[str, Any], log: str) -> None:
    """Let the run's directory hold its end, its report and pyinfra's own words."""

    def keep() -> None:
        write_whole(directory / LOG, log)
        journal = Journal(directory)
        journal.note("done", **about)
        journal.close()
        write_whole(directory / REPORT, json.dumps(visible_values(document), indent=2, ensure_ascii=False) + "\n")

    if despite(keep, str(directory)):
        say(f"report: {directory / REPORT}", err=True)


def despite(write: Callable[[], object], what: str) -> bool:
    """Write what became of machines, if it can be written; that it cannot be changes nothing of what did."""
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
    """Run pyinfra on this fleet to its end; whether we were interrupted meanwhile.

    `stream` is given each line that it says; without it, the journal in `directory` is followed instead. `meanwhile`
    is what goes on when it is interrupted.
    """
    argv = [str(Path(sys.executable).with_name("pyinfra")), *words]
    env = {"FLEET": str(front.root), "PROXMOX_TOKEN_FILE": str(front.token_path), "NO_COLOR": "1"}
    env |= {"PYINFRA_PROGRESS": "off"}
    ended: list[Completed | FleetError] = []

    def child() -> None:
        try:
            ended.append(run(argv, cwd=CHECKOUT, env=env, check=False, input=input, stream=stream))
        except FAILURES as error:
            ended.append(worded(error, "running pyinfra"))
        finally:
            over.set()

    over = threading.Event()  # an interrupted join() takes a thread for ended (python/cpython#90882)
    threading.Thread(target=child).start()
    interrupted, is_seen = False, True
    with follow(directory) if stream is None else nullcontext(lambda: None) as look:
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
    if not ended:  # the thread was ended by what nobody catches
        raise Undecided(f"pyinfra's end was not seen; its journal is in {directory}")
    if isinstance(ended[0], FleetError):
        raise ended[0]
    return ended[0], interrupted


def own_error(done: Completed) -> str | None:
    """Why pyinfra itself ended, in one line: its error, or its traceback's last line. None when it says neither."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines()]
    if any(_TRACEBACK.match(line) for line in lines):
        raised = [line for line in lines if _EXCEPTION.match(line)] or lines[-1:]
        return f"pyinfra: {raised[-1]}"
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR) and not line.endswith(_NO_HOSTS)]
    return f"pyinfra: {errors[-1]}" if errors else None


def last_words(done: Completed, log: Path) -> str:
    """Why a pyinfra that never began ended: its own error, else what it said beside its progress."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("-->")]
    return own_error(done) or "\n".join(lines) or f"pyinfra ended with status {done.status}; its output: {log}"
