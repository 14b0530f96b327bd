"""One evaluation for the whole selection, shared by every host of a run; a host that is wrong fails alone.

nix-eval-jobs, where there is one, evaluates several hosts side by side. Without it `nix eval` evaluates them together,
what they share once; many hosts in several processes side by side, as many at a time as memory has room for. Where one
fails, the half of its hosts in which something is wrong is looked for, and so on, which finds one of a hundred in a
dozen tries.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from nixherd.errors import FAILURES, FleetError, ProcessFailed
from nixherd.faults import worded
from nixherd.nix import commands as nix
from nixherd.nix import eval_jobs
from nixherd.nix.commands import Evaluated
from nixherd.nix.errors import explain_failure
from nixherd.nix.log import shown
from nixherd.process import run
from nixherd.session import Session, ahead
from nixherd.terminal import say

DEADLINE = 1800.0  # seconds
HELP_DEADLINE = 60.0
# What a host of real NixOS adds to an evaluation of several, and how much of what is free may be used.
BYTES_PER_HOST = 512 << 20
SHARE = 0.8
WORTHWHILE = 8  # hosts for a process of their own: each evaluates anew what all of them share

Found = Mapping[str, Evaluated | FleetError | None]


def evaluate(session: Session, host_ids: Sequence[str], host_id: str) -> Evaluated:
    """What the flake says of one host; all of `host_ids` of its kind are evaluated together, once per run.

    FleetError when the flake does not have this host, or cannot be evaluated for it.
    """
    host_ids = session.together if set(host_ids) <= set(session.together) else host_ids
    homes = _homes(session)
    is_nixos = host_id not in homes
    alike = tuple(each for each in host_ids if (each not in homes) == is_nixos)
    found = session.once(("evaluate", alike), lambda: _of_one_revision(session, alike, is_nixos=is_nixos))
    about = found.get(host_id)
    if isinstance(about, FleetError):
        raise about
    if about is None:
        place = "nixosConfigurations" if is_nixos else "homeConfigurations"
        raise FleetError(f"{session.fleet.path}/flake.nix: it has no {place}.{host_id}; add it")
    return about


def evaluate_ahead(session: Session, host_ids: Sequence[str]) -> None:
    """Begin to evaluate these hosts; `evaluate` waits for that when it is asked for some of them."""
    session.together = tuple(host_ids)
    homes = _homes(session)
    one_of_each_kind = {host_id in homes: host_id for host_id in host_ids}.values()
    ahead(*(partial(evaluate, session, host_ids, host_id) for host_id in one_of_each_kind))


def _homes(session: Session) -> set[str]:
    return {host.id for host in session.fleet.hosts.values() if not host.is_nixos}


def _of_one_revision(session: Session, host_ids: Sequence[str], *, is_nixos: bool) -> Found:
    """What each comes to, and of which revision that is: not known where the tree moved on meanwhile."""
    before = session.revision
    found = _all(session, host_ids, is_nixos=is_nixos)
    tell_warnings(session)
    revision = before if before == session.revision else None
    return {
        host_id: replace(about, revision=revision or about.configuration_revision)
        if isinstance(about, Evaluated)
        else about
        for host_id, about in found.items()
    }


def _all(session: Session, host_ids: Sequence[str], *, is_nixos: bool) -> Found:
    found: dict[str, Evaluated | FleetError | None] = {}
    if len(host_ids) > 1 and session.once("nix-eval-jobs", _has_jobs):
        found |= _side_by_side(session, host_ids, is_nixos=is_nixos)
    workers, batches = _batches([host_id for host_id in host_ids if host_id not in found])

    def work(batch: Sequence[str]) -> Found:
        return _found(session, batch, _try(session, batch, is_nixos=is_nixos), is_nixos=is_nixos)

    with ThreadPoolExecutor(workers) as pool:
        for each in pool.map(work, batches):
            found |= each
    return found


def _has_jobs() -> bool:
    if shutil.which(eval_jobs.PROGRAM) is None:
        return False
    done = run(eval_jobs.HELP, timeout=HELP_DEADLINE, check=False)
    return eval_jobs.is_usable(done.stdout + done.stderr)


def _side_by_side(session: Session, host_ids: Sequence[str], *, is_nixos: bool) -> Found:
    """What nix-eval-jobs says; a host that it lost on the way, or does not have, is not in it."""
    room = int(_available() * SHARE) // eval_jobs.BYTES_PER_WORKER
    workers = max(1, min(os.cpu_count() or 1, room, len(host_ids)))
    roots = str(session.gc_roots)
    argv = eval_jobs.jobs(session.flake, host_ids, is_nixos=is_nixos, roots=roots, workers=workers)
    done = run(argv, timeout=DEADLINE, check=False)
    session.warnings.take(done.stderr, are_hosts_known=False)  # several are evaluated at a time
    return eval_jobs.parse(done.stdout.splitlines(), Path(session.fleet.path))


def _batches(host_ids: Sequence[str]) -> tuple[int, list[Sequence[str]]]:
    """How many processes, and the hosts of each call: no more at a time than fit into memory."""
    room = max(1, int(_available() * SHARE) // BYTES_PER_HOST)
    workers = max(1, min(os.cpu_count() or 1, min(room, len(host_ids)) // WORTHWHILE))
    size = max(1, min(room // workers, -(-len(host_ids) // workers)))
    return workers, [host_ids[start : start + size] for start in range(0, len(host_ids), size)]


def _available() -> int:
    """Bytes of memory that are free for programs (proc_meminfo(5)); without that file, plenty."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 40
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 1 << 40)


def _found(session: Session, host_ids: Sequence[str], tried: Found | FleetError, *, is_nixos: bool) -> Found:
    """What is known of each, from what they came to together."""
    if not isinstance(tried, FleetError):
        return tried
    if len(host_ids) == 1:
        return {host_ids[0]: tried}
    middle = len(host_ids) // 2
    halves = [(half, _try(session, half, is_nixos=is_nixos)) for half in (host_ids[:middle], host_ids[middle:])]
    if all(isinstance(outcome, FleetError) and str(outcome) == str(tried) for _, outcome in halves):
        return dict.fromkeys(host_ids, tried)  # it is the flake that is wrong, not one of them
    found: dict[str, Evaluated | FleetError | None] = {}
    for half, outcome in halves:
        found |= _found(session, half, outcome, is_nixos=is_nixos)
    return found


def _try(session: Session, host_ids: Sequence[str], *, is_nixos: bool) -> Found | FleetError:
    try:
        return nix.parse_description(_asked(session, nix.describe(session.flake, host_ids, is_nixos=is_nixos)))
    except FAILURES as error:
        return worded(error, f"{session.fleet.path}: evaluating {', '.join(host_ids)}")


def as_of(session: Session, host_ids: Sequence[str], revision: str) -> Mapping[str, str]:
    """The systems of hosts that have the flake's revision in them, were it another one; empty where nobody can say."""
    try:
        text = ask(session, nix.as_of(session.flake, host_ids, revision))
    except FleetError:  # it cannot be another one
        return {}
    found: dict[str, str] = json.loads(text)
    return found


def ask(session: Session, argv: Sequence[str]) -> str:
    """Return what an evaluation of the flake prints. FleetError with where in the fleet's files it fails."""
    try:
        return _asked(session, argv)
    finally:
        tell_warnings(session)


def _asked(session: Session, argv: Sequence[str]) -> str:
    try:
        done = run(argv, timeout=DEADLINE)
    except ProcessFailed as error:
        session.warnings.take(error.stderr)
        if not error.stderr and error.status >= 0:
            raise
        raise FleetError(explain_failure(error, Path(session.fleet.path))) from error
    session.warnings.take(done.stderr)
    return done.stdout


def tell_warnings(session: Session) -> None:
    """Say what the evaluations warned of and was not said yet: on stderr, and in the deployment's journal."""
    for text, hosts, is_new in session.warnings.news():
        if is_new:
            say(f"warning: {shown(text, hosts)}", err=True)
        if session.journal is not None:
            session.journal.note("warning", text=text, hosts=list(hosts))
