"""The document as metrics for Prometheus: text that node_exporter's textfile collector and a scrape both take.

What is not known has no sample, never a 0: `nixherd_host_unknown` names it. Of a host that did not answer now, what was
last seen on it is left out, and what was seen elsewhere is there: its guest, backups, recipients, the last deployment.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nixherd.base.errors import Usage
from nixherd.base.terminal import visible
from nixherd.overview.document import State

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "status_timestamp_seconds": ("When the status was taken.", ()),
    "status_duration_seconds": ("How long taking the status took.", ()),
    "status_info": ("Of which fleet the status is, by whom, and its revision.", ("fleet", "revision", "operator")),
    "hosts": ("How many hosts are in this state.", ("state",)),
    "fleet_differs": ("1 while something of the fleet itself differs in this kind.", ("kind",)),
    "hypervisor_reachable": ("Whether the hypervisor answered what it was asked.", ("endpoint",)),
    "host_info": (
        "What the host is, and what it runs and should run; labels that are not known are empty.",
        ("host", "hostname", "kind", "mode", "revision", "desired", "kernel"),
    ),
    "host_state": ("1 for the state that the host is in, 0 for the others.", ("host", "state")),
    "host_reachable": ("Whether the host answered.", ("host",)),
    "host_last_seen_timestamp_seconds": ("When the host last answered.", ("host",)),
    "host_unreachable_since_timestamp_seconds": ("Since when the host has not answered.", ("host",)),
    "host_differs": ("1 while the host differs in this kind.", ("host", "kind")),
    "host_unknown": ("1 while this section of the host should be judged and is not known.", ("host", "section")),
    "host_key_right": ("Whether the host shows the pinned key.", ("host",)),
    "host_system_right": ("Whether the host runs the system that it should.", ("host",)),
    "host_behind_commits": ("How many commits of the desired revision what runs does not have.", ("host",)),
    "host_generation": ("The number of the generation that runs.", ("host",)),
    "host_reboot_pending": ("Whether the next boot brings what a switch did not.", ("host",)),
    "host_uptime_seconds": ("How long the host has been up.", ("host",)),
    "host_failed_units": ("How many units failed.", ("host",)),
    "host_secrets_right": ("Whether the host's secret files are encrypted for it as the rules say.", ("host",)),
    "host_secrets_decrypted": ("Whether all secrets that the host declares are there.", ("host",)),
    "host_filesystem_size_bytes": ("Size of a file system.", ("host", "filesystem")),
    "host_filesystem_used_bytes": ("What of a file system is used.", ("host", "filesystem")),
    "host_memory_size_bytes": ("Size of the memory.", ("host",)),
    "host_memory_used_bytes": ("What of the memory is used.", ("host",)),
    "host_deployed_timestamp_seconds": ("When the host was last deployed to.", ("host",)),
    "host_deployment_info": (
        "Who deployed last, its outcome, and whether a run from here proved it or the machine told it.",
        ("host", "operator", "outcome", "source"),
    ),
    "guest_running": ("Whether the hypervisor runs the guest.", ("host", "guest", "vmid")),
    "guest_drift": ("In how many points the guest differs from its definition.", ("host", "guest", "vmid")),
    "guest_snapshots": ("How many snapshots the guest has.", ("host", "guest", "vmid")),
    "guest_newest_snapshot_timestamp_seconds": ("When the newest snapshot was taken.", ("host", "guest", "vmid")),
    "guest_oldest_snapshot_timestamp_seconds": ("When the oldest snapshot was taken.", ("host", "guest", "vmid")),
    "guest_backups": ("How many backups the guest has.", ("host", "guest", "vmid")),
    "guest_newest_backup_timestamp_seconds": ("When the newest backup was made.", ("host", "guest", "vmid")),
}
"""by name, without `nixherd_`: what it says, and its labels; those of `_info` have the value 1"""

NAMES = frozenset(f"nixherd_{name}" for name in FAMILIES)
Sample = tuple[str, tuple[str, ...], float]


def exposition(document: Mapping[str, Any]) -> bytes:
    """The document in Prometheus' text format, in UTF-8. Usage where a time in it cannot be one."""
    from prometheus_client import CollectorRegistry, generate_latest  # it looks at its own process when it is imported

    class Status:
        def collect(self) -> Iterator["Metric"]:
            return _families(document)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Status())
    return generate_latest(registry)


def _families(document: Mapping[str, Any]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    families = {
        name: GaugeMetricFamily(f"nixherd_{name}", what, labels=labels) for name, (what, labels) in FAMILIES.items()
    }
    seen = set[tuple[str, tuple[str, ...]]]()
    for name, labels, value in _samples(document):
        texts = tuple(map(visible, labels))  # also what cannot be encoded
        if (name, texts) not in seen:  # node_exporter refuses a file that says a thing twice
            seen.add((name, texts))
            families[name].add_metric(texts, value)
    yield from (family for family in families.values() if family.samples)


def _samples(document: Mapping[str, Any]) -> Iterator[Sample]:
    for sample in (*_of_fleet(document), *(each for host in document["hosts"] for each in _of_host(host))):
        name, labels, value = sample
        if value is not None and math.isfinite(value):
            yield name, tuple("" if label is None else str(label) for label in labels), float(value)


Maybe = tuple[str, tuple[Any, ...], float | None]


def _of_fleet(document: Mapping[str, Any]) -> Iterator[Maybe]:
    yield "status_timestamp_seconds", (), _seconds(document["taken"])
    yield "status_duration_seconds", (), document["seconds"]
    yield "status_info", (document["fleet"], document["revision"], document["operator"]), 1
    for state, number in document["summary"].items():
        yield "hosts", (state,), number
    for difference in document["differences"]:
        yield "fleet_differs", (difference["kind"],), 1
    hypervisor = document["hypervisor"]
    answered = {"answered": 1, "unreachable": 0, "refused": 0}.get(hypervisor["state"])
    yield "hypervisor_reachable", (hypervisor["endpoint"],), answered


def _of_host(host: Mapping[str, Any]) -> Iterator[Maybe]:
    name, reach = (host["host"],), host["reach"]
    yield "host_info", _labels(host), 1
    for state in State:
        yield "host_state", (*name, str(state)), host["state"] == state
    yield "host_reachable", name, reach["answered"]
    yield "host_last_seen_timestamp_seconds", name, _seconds(reach["at"])
    yield "host_unreachable_since_timestamp_seconds", name, _seconds(reach["since"])
    for difference in host["differences"]:
        yield "host_differs", (*name, difference["kind"]), 1
    for section in host["unknown"]:
        yield "host_unknown", (*name, section), 1
    yield "host_key_right", name, host["key"]["same"]
    yield "host_secrets_right", name, host["secrets"]["recipients"]
    if deployment := host["deployment"]:
        yield "host_deployed_timestamp_seconds", name, _seconds(deployment["when"])
        told = (deployment["who"], deployment["outcome"], deployment["source"])
        yield "host_deployment_info", (*name, *told), 1
    if reach["answered"]:
        yield from _of_machine(host, name)
    if guest := host["guest"]:
        yield from _of_guest(guest, name)


def _labels(host: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those of the host's info; what runs there only where that was seen now."""
    revision, is_current = host["revision"], host["reach"]["answered"]
    running, kernel = (revision["running"], host["reboot"]["kernel"]) if is_current else (None, None)
    mode = host["update"]["mode"]
    return (host["host"], host["hostname"], host["kind"], mode, running, revision["desired"], kernel)


def _of_machine(host: Mapping[str, Any], name: tuple[str]) -> Iterator[Maybe]:
    """What the machine itself said now."""
    failed = host["units"]["failed"]
    yield "host_system_right", name, host["system"]["same"]
    yield "host_behind_commits", name, host["revision"]["behind"]
    yield "host_generation", name, host["system"]["generation"]
    yield "host_reboot_pending", name, host["reboot"]["pending"]
    yield "host_uptime_seconds", name, host["reboot"]["uptime"]
    yield "host_failed_units", name, None if failed is None else len(failed)
    yield "host_secrets_decrypted", name, host["secrets"]["decrypted"]
    for disk in host["disks"]:
        yield "host_filesystem_size_bytes", (*name, disk["name"]), disk["total"]
        yield "host_filesystem_used_bytes", (*name, disk["name"]), disk["used"]
    if memory := host["memory"]:
        yield "host_memory_size_bytes", name, memory["total"]
        yield "host_memory_used_bytes", name, memory["used"]


def _of_guest(guest: Mapping[str, Any], name: tuple[str]) -> Iterator[Maybe]:
    """What the hypervisor said now."""
    labels, power, drift = (*name, guest["name"], guest["vmid"]), guest["power"], guest["drift"]
    yield "guest_running", labels, None if power is None else power == "running"
    yield "guest_drift", labels, None if drift is None else len(drift)
    yield "guest_snapshots", labels, guest["snapshots"]
    yield "guest_newest_snapshot_timestamp_seconds", labels, _seconds(guest["newest_snapshot"])
    yield "guest_oldest_snapshot_timestamp_seconds", labels, _seconds(guest["oldest_snapshot"])
    yield "guest_backups", labels, guest["backups"]
    yield "guest_newest_backup_timestamp_seconds", labels, _seconds(guest["newest_backup"])


def _seconds(text: str | None) -> float | None:
    """Seconds since the epoch, of a time of the document."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(f"{text!r} is not a time; the document has times like 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise Usage(f"{text!r} is a time without its zone; the document has times like 2026-01-31T12:00:00Z")
    return time.timestamp()
