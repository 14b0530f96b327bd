"""One rollout: pyinfra with files of deploys/ as a child, followed by its journal, judged by it, and reported."""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from getpass import getpass
from pathlib import Path
from typing import Any

from nixherd.cli.changes import changes
from nixherd.cli.following import follow
from nixherd.cli.front import CHECKOUT, Front
from nixherd.cli.output import narrate, show_json, wants_json
from nixherd.deploying.goal import Goal
from nixherd.deploying.journal import NAME, Journal, entries, new_directory, runs
from nixherd.deploying.report import Outcome, Report, report
from nixherd.display import visible_values
from nixherd.errors import FAILURES, FleetError, Undecided, Usage
from nixherd.exits import Exit
from nixherd.faults import worded
from nixherd.files import write_whole
from nixherd.inventory import check_selection, groups_of, separate
from nixherd.process import Completed, interrupt_all, run
from nixherd.terminal import is_terminal, say, say_text

REPORT, LOG = "report.json", "pyinfra.log"
# What pyinfra itself says when it cannot go on (pyinfra_cli/exceptions.py).
_ERROR = "--> pyinfra error: "
_NO_HOSTS = "No hosts remaining!"  # why each of them failed is in the report
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|--> An (internal )?exception occurred")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
DEPLOY, REBOOT = "deploys/deploy.py", "deploys/reboot.py"
PARALLEL = 100  # hosts at a time; what is heavy is bounded where it is done


def rollout(
    front: Front,
    deploy_file: str,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    said: dict[str, Any],
    *,
    dry: bool,
) -> int:
    """Run it to its end and report; the status. `said` are host data by name."""
    directory = new_directory()
    Journal(directory).close()
    if flake := said.pop("flake"):
        reference, _, host = flake.partition("#")
        hosts, data = [*hosts, *([host] if host else [])], (*data, f"flake={reference}")
    if said.get("local") and not hosts:
        hosts = [os.uname().nodename]
    password = _password() if said.pop("ask_sudo_password") else None
    data = (*data, "sudo_password=stdin") if password is not None else data
    words = ["--dry" if dry else "-y", "--parallel", str(PARALLEL), "inventory.py", deploy_file]
    words += [word for each in hosts for word in ("--limit", each)]
    words += [word for each in exclude for word in ("--exclude", each)]
    given = {name: value for name, value in said.items() if value is not None}
    pairs = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()]
    words += [word for pair in (f"journal={directory}", *pairs, *data) for word in ("--data", pair)]
    said_to_it = None if password is None else f"{password}\n"
    done, interrupted = run_pyinfra(front, words, directory, input=said_to_it)
    found = report(entries(directory))
    if not found.hosts and not interrupted:  # it never began
        say_text(last_words(done, directory / LOG), err=True)
        despite(lambda: write_whole(directory / LOG, done.stdout + done.stderr), str(directory))
        return done.status or int(Exit.FAILED)
    for line in done.stderr.splitlines():
        if str(directory / NAME) in line:  # what could not be noted is not in the report
            say(line, err=True)
    if (error := own_error(done)) and not error.endswith(_NO_HOSTS):
        say(error, err=True)
    status = Exit.INTERRUPTED if interrupted else found.exit
    about: dict[str, Any] = {"exit": int(status), "interrupted": interrupted, "pyinfra": done.status}
    document = {**found.to_json(), **about}
    keep_report(directory, about, document, done.stdout + done.stderr)
    is_said = despite(lambda: _show(front, found, document, dry=dry), "stdout")
    return int(status or (Exit.DONE if is_said else Exit.FAILED))


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


def _show(front: Front, found: Report, document: dict[str, Any], *, dry: bool) -> None:
    narrate(found.about.get("warnings", ()))
    if wants_json(front.as_json):
        show_json(document)
        return
    for line in _lines(found, dry=dry):
        say(line)


def failed_last(front: Front, named: Sequence[str] = ()) -> list[str]:
    """The hosts that the last deployment of this fleet did not bring to what the flake says; of those named, if any.

    Usage when no deployment is on record, or none of those named is among them.
    """
    failed = _failed_last(front)
    if not (named and failed):
        return failed
    groups = groups_of(front.fleet)
    selected = check_selection(separate(named, groups), groups, "HOST")
    if not selected.intersection(failed):
        raise Usage(
            f"--rerun-failed {' '.join(named)}: the last deployment of this fleet failed on none of these; "
            f"it failed on {', '.join(failed)}"
        )
    return [host for host in failed if host in selected]


def _failed_last(front: Front) -> list[str]:
    for directory in reversed(runs()):
        last = report(entries(directory))
        ours = last.about.get("fleet") == str(front.root) and "deploy" in last.about.get("steps", ())
        is_plan = last.about.get("dry") or all(each.outcome is Outcome.PLANNED for each in last.hosts)
        if ours and not is_plan:
            return [each.host for each in last.hosts if each.outcome.exit is not Exit.DONE]
    raise Usage(f"{front.root}: no deployment of this fleet is on record here")


def _password() -> str:
    """One line, typed unseen or piped."""
    if is_terminal(sys.stdin):
        return getpass("sudo's password on the machines: ")
    return sys.stdin.readline().rstrip("\n")


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
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return f"pyinfra: {errors[-1]}" if errors else None


def last_words(done: Completed, log: Path) -> str:
    """Why a pyinfra that never began ended: its own error, else what it said beside its progress."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("-->")]
    return own_error(done) or "\n".join(lines) or f"pyinfra ended with status {done.status}; its output: {log}"


# For people


def _lines(found: Report, *, dry: bool) -> Iterable[str]:
    if dry or found.about.get("goal") == Goal.DRY_ACTIVATE:
        yield from changes(found.hosts)
    width = max((len(each.host) for each in found.hosts), default=0)
    for each in sorted(found.hosts, key=lambda each: (list(Outcome).index(each.outcome), each.host)):
        seconds = f" ({each.seconds:.1f} s)" if each.seconds and not dry else ""
        reboot = each.found.get("reboot_for") if each.outcome in (Outcome.DEPLOYED, Outcome.PENDING_REBOOT) else None
        notes = f"; needs a reboot for {', '.join(reboot)}" if reboot else ""
        notes += f"; revision not noted: {each.found['unnoted']}" if each.found.get("unnoted") else ""
        yield f"{each.host:{width}}  {each.outcome}{seconds}{f': {each.why}' if each.why else ''}{notes}"
        if each.outcome is Outcome.ROLLED_BACK:
            yield from (f"{'':{width}}  | {line}" for line in each.found.get("log", ())[-8:])
    if found.about.get("dirty"):
        yield f"from files that are not committed: {', '.join(found.about['dirty'])}"
    yield found.summary
