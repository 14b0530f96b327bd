"""`nixherd page`: the status as pages, for a directory that any web server can serve, or a browser opens."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from nixherd.base.files import expanded
from nixherd.base.names import many
from nixherd.base.terminal import say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.metrics import status_document, status_options
from nixherd.deploy.history import changes_by_host
from nixherd.deploy.timeline import PROVED, timeline
from nixherd.overview.last_seen import SeenBefore


@click.command()
@click.argument("directory", metavar="DIR")
@status_options
@pass_front
def page(front: Front, /, directory: str, **options: Any) -> None:
    """Write what runs where as pages into DIR: index.html, and a page for each host.

    They ask nobody for anything, so that they can be opened as files, mailed, or put on any web server; everybody who
    can read the directory can read them. Files in DIR that are not ours stay.
    """
    from nixherd.overview.page.render import Pages, write

    place = expanded(directory)
    document = status_document(front, **options)
    number = write(place, Pages(document, histories(front)))
    say(f"{place.absolute() / 'index.html'}: {many(number, 'page')}")


def histories(front: Front) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """By host, what was done to it, the newest last: by runs from here, and by others as its machine told."""
    lines, now = changes_by_host(str(front.root)), datetime.now(UTC)
    rows = defaultdict[str, list[dict[str, Any]]](list)
    for host, each in lines.items():
        rows[host] = [{**line.to_json(), "source": PROVED} for line in each]
    for host, seen in SeenBefore(front.run.state_directory).recall().items():
        for event in timeline(lines.get(host, ()), seen.notes, now):
            if event.source != PROVED:
                values = asdict(event)
                rows[host].append({**values, "began": event.when, "after": event.path, "operator": event.who})
    return {host: sorted(each, key=lambda row: row["began"] or "") for host, each in rows.items()}
