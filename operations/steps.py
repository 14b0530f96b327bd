"""The way of before to plan and act, for operations/proxmox and proxmox_host; see nixherd.pyinfra_glue.operation."""

from collections.abc import Callable

from pyinfra.api.host import Host

from nixherd.pyinfra_glue.hosts import (
    build_selection,
    connector_of,
    evaluated,
    executing,
    failed,
    fleet_host,
    selection,
    vm_of,
)
from nixherd.pyinfra_glue.operation import Change, Commands, complain, guarded, say_and_make

__all__ = [
    "Commands",
    "build_selection",
    "complain",
    "connector_of",
    "decide",
    "do",
    "evaluated",
    "executing",
    "failed",
    "fleet_host",
    "selection",
    "vm_of",
]


def do(host: Host, summary: str, act: Callable[[], object], *, by_api: bool = False, changes: bool = True) -> Commands:
    yield from say_and_make(host, Change(summary, act, by_api=by_api, changes=changes))


def decide(host: Host, body: Callable[[], Commands]) -> Commands:
    yield from guarded(host, body)
