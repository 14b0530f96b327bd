"""`nixherd metrics`: the status of the fleet for Prometheus, on stdout or as a file of node_exporter's collector."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.names import many
from nixherd.base.terminal import line_of, say, say_text
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import progress
from nixherd.cli.parameters import data_option, together
from nixherd.fleet.groups import check_selection, separate
from nixherd.overview.document import Overview

SUFFIX = ".prom"
"""what node_exporter reads in its directory"""
HOSTS_OF = {"nixos": "nixos", "home": "home_manager"}
"""by a host's kind in the document: the group of such hosts"""
FILES = {"alerts": "alerts.yaml", "dashboard": "dashboard.json"}

# what commands take that make something of a status, or of one that was kept
status_choices = together(
    click.option("--no-eval", is_flag=True, help="Compare with what was evaluated or deployed before."),
    click.option("--no-vm", is_flag=True, help="Ask the hypervisor nothing."),
    click.option("--from", "source", metavar="FILE", help="Ask nobody: take what `nixherd status --json` wrote."),
    data_option,
)
status_options = together(
    click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]..."),
    click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated."),
    status_choices,
)


@click.command()
@status_options
@click.option("--output", metavar="FILE", help="Write this file, whose name ends in .prom, for node_exporter.")
@click.option("--print", "shown", type=click.Choice(list(FILES)), help="Print alert rules, or a Grafana dashboard.")
@pass_front
def metrics(front: Front, /, output: str | None, shown: str | None, **options: Any) -> None:
    """Write the status of hosts as metrics for Prometheus; what is not known has no sample.

    Status 0 when they were written, whatever they say: alert rules judge them.
    """
    if shown:
        say_text(resources.files("nixherd.overview").joinpath("monitoring", FILES[shown]).read_text().rstrip("\n"))
        return
    from nixherd.overview.metrics import exposition

    place = None if output is None else textfile(output)
    text = exposition(status_document(front, **options)).decode()
    if place is None:
        say_text(text.rstrip("\n"))
        return
    try:
        write_whole(place, text, 0o644)  # node_exporter has an account of its own
    except OSError as error:
        raise FleetError(f"{place}: was not written: {line_of(error)}") from error
    say(f"{place}: {many(sum(not line.startswith('#') for line in text.splitlines()), 'sample')}", err=True)


def textfile(text: str) -> Path:
    """The file that node_exporter is to read. Usage where it would not, or where a link leads elsewhere."""
    path = expanded(text)
    if path.suffix != SUFFIX or path.name == SUFFIX:
        raise Usage(f"--output {text}: node_exporter reads files that end in {SUFFIX}; write NAME{SUFFIX}")
    if path.is_symlink():
        raise Usage(f"--output {text}: is a symbolic link, which is not followed; name the file itself")
    if not path.parent.is_dir():
        raise Usage(f"--output {text}: {path.parent} is not a directory; make it, and let node_exporter read it")
    if path.exists() and not path.is_file():
        raise Usage(f"--output {text}: is not a file; name another")
    return path


def status_document(
    front: Front,
    hosts: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    no_eval: bool = False,
    no_vm: bool = False,
    source: str | None = None,
    data: Sequence[str] = (),
) -> dict[str, Any]:
    """The status of these hosts as a document: gathered now, or read from the file `source`, which has some of them.

    Usage where the file has none of that, or not these hosts.
    """
    if source is None:
        front.root  # noqa: B018  a fleet that does not exist is said before anybody is asked
        from nixherd.cli.gathering import gather

        with progress("status") as tell:
            how: dict[str, Any] = {"evaluate": not no_eval, "vm": not no_vm, "exclude": exclude, "data": data}
            return gather(front, hosts, tell=tell, **how).to_json()
    if no_eval or no_vm or data:
        raise Usage("--from takes what a file has; leave out --no-eval, --no-vm and --data")
    return _kept(source, hosts, exclude).to_json()


def _kept(source: str, hosts: Sequence[str], exclude: Sequence[str]) -> Overview:
    """What a file has of these hosts and groups."""
    from nixherd.overview.reading import read_overview

    try:
        text = expanded(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = line_of(error) if isinstance(error, OSError) else f"{source}: is not UTF-8 text ({error.reason})"
        raise Usage(f"--from: {why}") from None
    overview = read_overview(text, f"--from {source}")
    groups: dict[str, list[str]] = {"all": [host.host for host in overview.hosts]}
    for host in overview.hosts:
        for name in {host.hostname or host.host, HOSTS_OF[host.kind], *host.tags} - {*groups["all"]}:
            groups.setdefault(name, []).append(host.host)
    chosen = check_selection(separate(hosts or ["all"], groups), groups, "HOST")
    chosen -= check_selection(separate(exclude, groups), groups, "--exclude")
    return replace(overview, hosts=tuple(host for host in overview.hosts if host.host in chosen))
