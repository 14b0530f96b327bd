"""`nixherd status`: what runs where, what it should be, and what differs."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from nixherd.base.names import human
from nixherd.base.terminal import is_terminal, say, say_text, visible_values
from nixherd.cli.front import Front, pass_front
from nixherd.cli.gathering import gather, gather_afresh
from nixherd.cli.output import duration, progress, show_json, show_rows, wants_json
from nixherd.cli.parameters import Text, data_option, json_option, whole_seconds
from nixherd.deploy.running import days_of
from nixherd.fleet.revisions import shown
from nixherd.overview.document import HostView, Mend, Overview, State
from nixherd.overview.judge import parsed
from nixherd.overview.schema import schema

UNKNOWN, NONE = "unknown", "none"
DEFAULT = ("host", "state", "differs", "revision", "behind", "deployed", "update")


def _yes(value: bool | None, yes: str, no: str) -> str:
    return UNKNOWN if value is None else yes if value else no


def _ago(time_text: str | None, now: datetime) -> str | None:
    return duration(max(0, int((now - parsed(time_text)).total_seconds()))) if time_text else None


Cell = Callable[[HostView, datetime], Any]
COLUMNS: Mapping[str, Cell] = {
    "host": lambda host, now: host.host,
    "state": lambda host, now: str(host.state),
    "differs": lambda host, now: [*dict.fromkeys(str(each.kind) for each in host.differences)],
    "unknown": lambda host, now: [*host.unknown],
    "revision": lambda host, now: shown(host.revision.running),
    "desired": lambda host, now: shown(host.revision.desired),
    "behind": lambda host, now: UNKNOWN if host.revision.behind is None else host.revision.behind,
    "system": lambda host, now: _yes(host.system.same, "as desired", "other"),
    "path": lambda host, now: host.system.running or UNKNOWN,
    "generation": lambda host, now: UNKNOWN if host.system.generation is None else host.system.generation,
    "kernel": lambda host, now: host.reboot.kernel or UNKNOWN,
    "reboot": lambda host, now: list(host.reboot.why) or _yes(host.reboot.pending, "pending", "no"),
    "failed": lambda host, now: UNKNOWN if host.units.failed is None else list(host.units.failed) or NONE,
    "uptime": lambda host, now: UNKNOWN if host.reboot.uptime is None else duration(host.reboot.uptime),
    "address": lambda host, now: host.reach.address or UNKNOWN,
    "key": lambda host, now: "not pinned" if host.key.pinned is None else _yes(host.key.same, "as pinned", "other"),
    "secrets": lambda host, now: _secrets(host),
    "vm": lambda host, now: host.guest.power or UNKNOWN if host.guest else None,
    "drift": lambda host, now: _drift(host),
    "snapshots": lambda host, now: _counted(host, "snapshots"),
    "snapshot": lambda host, now: _ago(host.guest.newest_snapshot, now) if host.guest else None,
    "backup": lambda host, now: _backup(host, now),
    "disk": lambda host, now: [f"{each.name} {_percent(each.used, each.total)}" for each in host.disks] or UNKNOWN,
    "memory": lambda host, now: f"{human(host.memory.used)} of {human(host.memory.total)}" if host.memory else UNKNOWN,
    "update": lambda host, now: str(host.update.mode or ("several" if host.update.modes else NONE)),
    "deployed": lambda host, now: _ago(host.deployment.when, now) if host.deployment else UNKNOWN,
    "by": lambda host, now: host.deployment.who if host.deployment else UNKNOWN,
    "outcome": lambda host, now: host.deployment.outcome if host.deployment else UNKNOWN,
    "unreachable_since": lambda host, now: host.reach.since,
    "seen": lambda host, now: "never" if host.reach.at is None else _ago(host.reach.at, now),
    "tags": lambda host, now: list(host.tags),
}
"""by name: what a column shows of a host; ages are of the moment that is given"""


def _secrets(host: HostView) -> str:
    recipients = _yes(host.secrets.recipients, "right", "wrong")
    return f"recipients {recipients}, decrypted {_yes(host.secrets.decrypted, 'all', 'not all')}"


def _drift(host: HostView) -> Any:
    if host.guest is None:
        return UNKNOWN if "guest" in host.unknown else None
    return UNKNOWN if host.guest.drift is None else list(host.guest.drift) or NONE


def _counted(host: HostView, name: str) -> Any:
    if host.guest is None:
        return UNKNOWN if "guest" in host.unknown else None
    number = getattr(host.guest, name)
    return UNKNOWN if number is None else number


def _backup(host: HostView, now: datetime) -> Any:
    number = _counted(host, "backups")
    if host.guest is None or number in (UNKNOWN, 0):
        return NONE if number == 0 else number
    return _ago(host.guest.newest_backup, now) or UNKNOWN


def _percent(used: int, total: int) -> str:
    return f"{round(100 * used / total)} %" if total else UNKNOWN


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    wrong = [name for name in names if name not in COLUMNS]
    if wrong or not names:
        raise ValueError(f"{', '.join(wrong) or text!r}: there are the columns {', '.join(COLUMNS)}")
    return names


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated.")
@click.option("--no-eval", is_flag=True, help="Compare with what was evaluated or deployed before of this revision.")
@click.option("--no-vm", is_flag=True, help="Ask no hypervisor.")
@click.option(
    "--columns", type=Text("columns", _columns), metavar="NAME,...", help="Of these; `all` of them are in the JSON."
)
@click.option("--sort", type=click.Choice([*COLUMNS]), default="host", show_default=True, help="By this column.")
@click.option("--needs", type=click.Choice([str(each) for each in Mend]), multiple=True, help="Hosts that need it.")
@click.option("--behind", is_flag=True, help="Hosts that run an older revision.")
@click.option("--failed", is_flag=True, help="Hosts with failed units.")
@click.option(
    "--backup-age",
    type=Text("days", days_of),
    default="8d",
    show_default=True,
    metavar="DAYS",
    help="How old a guest's newest backup may be.",
)
@click.option("--watch", type=whole_seconds(1), metavar="SECONDS", help="Look again and again, so many seconds apart.")
@click.option("--schema", "shows_schema", is_flag=True, help="Print the JSON schema of the document, and ask nobody.")
@data_option
@json_option
@pass_front
def status(
    front: Front,
    /,
    hosts: Sequence[str],
    exclude: Sequence[str],
    no_eval: bool,
    no_vm: bool,
    columns: tuple[str, ...] | None,
    sort: str,
    needs: Sequence[str],
    behind: bool,
    failed: bool,
    backup_age: int,
    watch: int | None,
    shows_schema: bool,
    data: Sequence[str],
) -> int:
    """Show what runs on the fleet's machines, what it should be, and what differs.

    A machine is asked once, by its pinned key alone; of one that does not answer, what was last known is shown. Status
    1: something differs; 4: a machine or the hypervisor did not answer; 5: something is not known.
    """
    if shows_schema:
        show_json(schema())
        return 0
    how: dict[str, Any] = {"evaluate": not no_eval, "vm": not no_vm, "exclude": exclude, "data": data}
    how["backup_age"] = timedelta(days=backup_age)
    chosen = _Chosen(frozenset(needs), behind, failed)

    def look(front: Front) -> Overview:
        with progress("status") as tell:
            return chosen.of(gather(front, hosts, tell=tell, **how))

    if watch is None:
        overview = look(front)
        _show(front, overview, columns, sort)
        return int(overview.exit)
    return _watch(front, lambda: chosen.of(gather_afresh(front, hosts, **how)), watch, columns, sort)


def _watch(front: Front, look: Callable[[], Overview], seconds: int, columns: tuple[str, ...] | None, sort: str) -> int:
    """Show it again and again until Ctrl-C, which is its usual end: the status is that of what was shown last."""
    exit = 0
    try:
        while True:
            overview = look()
            exit = int(overview.exit)
            if wants_json(front.as_json):
                say_text(json.dumps(visible_values(overview.to_json()), ensure_ascii=False))
            else:
                if is_terminal(sys.stdout):
                    click.clear()
                _show(front, overview, columns, sort)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return exit


class _Chosen:
    """Which hosts are shown."""

    def __init__(self, needs: frozenset[str], behind: bool, failed: bool) -> None:
        self._needs, self._behind, self._failed = needs, behind, failed

    def of(self, overview: Overview) -> Overview:
        """The document with these hosts alone; all of it where all are."""
        if not (self._needs or self._behind or self._failed):
            return overview
        hosts = tuple(filter(self._has, overview.hosts))
        needed = tuple(each for each in overview.differences if each.mend in self._needs)
        return replace(overview, hosts=hosts, differences=needed)

    def _has(self, host: HostView) -> bool:
        return (
            (not self._needs or any(each.mend in self._needs for each in host.differences))
            and (not self._behind or bool(host.revision.behind))
            and (not self._failed or bool(host.units.failed))
        )


def rows_of(overview: Overview, columns: Iterable[str], now: datetime) -> list[dict[str, Any]]:
    """A row for each host, with these columns."""
    return [{name: COLUMNS[name](host, now) for name in columns} for host in overview.hosts]


def _show(front: Front, overview: Overview, columns: tuple[str, ...] | None, sort: str) -> None:
    """Show the document, or its table with what differs and what is not known below."""
    if wants_json(front.as_json):
        show_json(overview.to_json())
        return
    now = datetime.now(UTC)
    order = {host.host: _sorting(COLUMNS[sort](host, now)) for host in overview.hosts}
    sorted_hosts = tuple(sorted(overview.hosts, key=lambda host: (order[host.host], host.host)))
    overview = replace(overview, hosts=sorted_hosts)
    show_rows(rows_of(overview, columns or DEFAULT, now), columns or DEFAULT, front.as_json, "no host is left to show")
    for line in lines(overview, now):
        say(line)


def _sorting(value: Any) -> tuple[int, float, str]:
    """Numbers by their size, then texts; what is not known last."""
    if value is None or value == UNKNOWN:
        return 2, 0.0, ""
    return (0, float(value), "") if isinstance(value, int) else (1, 0.0, str(value))


def lines(overview: Overview, now: datetime) -> Iterator[str]:
    """What differs and what is not known, a line each, and a summary."""
    for host in overview.hosts:
        if host.state is State.UNREACHABLE:
            last = f"last seen {_ago(host.reach.at, now)} ago" if host.reach.at else "never seen from here"
            yield f"{host.host}: unreachable: {host.reach.why}; {last}"
        for each in host.differences:
            command = f"; `{' '.join(each.command)}`" if each.command else ""
            yield f"{host.host}: {each.kind}: {each.what}{command}"
        if host.state is not State.UNREACHABLE:
            yield from (f"{host.host}: {section}: unknown: {why}" for section, why in host.unknown.items())
    for each in overview.differences:
        yield f"{each.kind}: {each.what}"
    if overview.hypervisor.state in ("unreachable", "refused"):
        yield f"hypervisor {overview.hypervisor.endpoint}: {overview.hypervisor.state}: {overview.hypervisor.why}"
    counts = ", ".join(f"{number} {state}" for state, number in overview.summary.items() if number)
    yield f"{counts or 'no host'}; {shown(overview.revision)}"
