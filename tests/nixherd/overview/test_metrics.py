"""The document as Prometheus' text: by its own reader, by promtool, and what is not known has no sample."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lab.places import cache_directory
from lab.setup import promtool
from nixherd.base.errors import Usage
from nixherd.overview import metrics
from nixherd.overview.document import (
    Deployment,
    Difference,
    Guest,
    HostView,
    Hypervisor,
    Key,
    Kind,
    Mode,
    Overview,
    Reach,
    Reboot,
    Revision,
    Secrets,
    Space,
    State,
    System,
    Units,
    Update,
)

MONITORING = Path(metrics.__file__).with_name("monitoring")
TESTS = Path(__file__).with_name("monitoring")
TAKEN, DAY_BEFORE = "2026-01-31T12:00:00Z", "2026-01-30T12:00:00Z"
WEB = HostView(
    "web01",
    "web01",
    "nixos",
    State.DIFFERS,
    reach=Reach(True, "192.0.2.1", at=TAKEN, age=0),
    key=Key("SHA256:a", "SHA256:a", same=True),
    revision=Revision("b" * 40, "a" * 40, 3),
    system=System("/nix/store/b", "evaluated", "/nix/store/a", same=False, generation=41),
    reboot=Reboot(pending=True, why=("kernel",), kernel="6.12.1", uptime=86400),
    units=Units(("nginx.service", "a.service")),
    secrets=Secrets(recipients=True, decrypted=False, declared=2),
    guest=Guest(
        110, "web", power="running", drift=("memory: 1024 -> 2048",), remedy="apply", snapshots=1, backups=2,
        newest_snapshot=DAY_BEFORE, oldest_snapshot=DAY_BEFORE, newest_backup=DAY_BEFORE,
    ),
    disks=(Space("/", 100, 40),),
    memory=Space("memory", 2048, 1024),
    update=Update(Mode.PUSHED, (Mode.PUSHED,)),
    deployment=Deployment(DAY_BEFORE, "ops@desk", outcome="deployed", source="proved"),
    differences=(Difference(Kind.SYSTEM, "runs a, and is to run b"), Difference(Kind.UNITS, "2 units failed")),
)  # fmt: skip
DOWN = replace(
    WEB,
    host="down",
    state=State.UNREACHABLE,
    reach=Reach(False, why="nobody answers", at=DAY_BEFORE, age=86400, since=DAY_BEFORE),
    key=Key("SHA256:a"),
    differences=(),
    unknown={"system": "nobody answers"},
)


def document(*hosts: HostView, **more: Any) -> dict[str, Any]:
    return Overview("/fleet", TAKEN, "b" * 40, hosts, **more).to_json()


def samples(document: dict[str, Any]) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """By name, and by labels: the values."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.exposition(document).decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def of(document: dict[str, Any], host: str) -> dict[str, float]:
    """What is said of one host, by name and the labels other than its own."""
    return {
        " ".join([name.removeprefix("nixherd_"), *(f"{key}={value}" for key, value in labels if key != "host")]): value
        for name, rows in samples(document).items()
        for labels, value in rows.items()
        if ("host", host) in labels
    }


def test_each_part_of_a_host_that_answers() -> None:
    guest = "guest=web vmid=110"
    day_before = 1769774400.0
    info = f"host_info desired={'b' * 40} hostname=web01 kernel=6.12.1 kind=nixos mode=pushed revision={'a' * 40}"
    assert of(document(WEB), "web01") == {
        info: 1,
        **{f"host_state state={state}": float(state == "differs") for state in State},
        "host_reachable": 1,
        "host_last_seen_timestamp_seconds": day_before + 86400,
        "host_differs kind=system": 1,
        "host_differs kind=units": 1,
        "host_key_right": 1,
        "host_system_right": 0,
        "host_behind_commits": 3,
        "host_generation": 41,
        "host_reboot_pending": 1,
        "host_uptime_seconds": 86400,
        "host_failed_units": 2,
        "host_secrets_right": 1,
        "host_secrets_decrypted": 0,
        "host_filesystem_size_bytes filesystem=/": 100,
        "host_filesystem_used_bytes filesystem=/": 40,
        "host_memory_size_bytes": 2048,
        "host_memory_used_bytes": 1024,
        "host_deployed_timestamp_seconds": day_before,
        "host_deployment_info operator=ops@desk outcome=deployed source=proved": 1,
        f"guest_running {guest}": 1,
        f"guest_drift {guest}": 1,
        f"guest_snapshots {guest}": 1,
        f"guest_newest_snapshot_timestamp_seconds {guest}": day_before,
        f"guest_oldest_snapshot_timestamp_seconds {guest}": day_before,
        f"guest_backups {guest}": 2,
        f"guest_newest_backup_timestamp_seconds {guest}": day_before,
    }


def test_what_was_last_seen_of_a_host_is_not_what_it_is_now() -> None:
    assert of(document(DOWN), "down").keys() == {
        f"host_info desired={'b' * 40} hostname=web01 kernel= kind=nixos mode=pushed revision=",
        *(f"host_state state={state}" for state in State),
        *("host_reachable", "host_last_seen_timestamp_seconds", "host_unreachable_since_timestamp_seconds"),
        *("host_unknown section=system", "host_secrets_right", "host_deployed_timestamp_seconds"),
        "host_deployment_info operator=ops@desk outcome=deployed source=proved",
        *(each for each in of(document(WEB), "web01") if each.startswith("guest_")),
    }


def test_what_is_not_known_has_no_sample() -> None:
    unknown = HostView("new", None, "nixos", State.UNKNOWN, reach=Reach(True, at=TAKEN), unknown={"units": "not seen"})
    assert of(document(unknown), "new") == {
        "host_info desired= hostname= kernel= kind=nixos mode= revision=": 1,
        **{f"host_state state={state}": float(state == "unknown") for state in State},
        "host_reachable": 1,
        "host_last_seen_timestamp_seconds": 1769860800,
        "host_unknown section=units": 1,
    }
    assert "host_reachable" not in of(document(replace(unknown, reach=Reach(None))), "new")


@pytest.mark.parametrize(
    ("state", "value"), [("answered", 1.0), ("unreachable", 0.0), ("refused", 0.0), ("not asked", None), ("none", None)]
)
def test_the_hypervisor(state: str, value: float | None) -> None:
    rows = samples(document(hypervisor=Hypervisor(state, "pve:8006"))).get("nixherd_hypervisor_reachable", {})
    assert rows == ({} if value is None else {(("endpoint", "pve:8006"),): value})


def test_the_fleet() -> None:
    found = samples(document(WEB, DOWN, differences=(Difference(Kind.RECIPIENTS, "a.yaml"),), seconds=1.5))
    assert found["nixherd_fleet_differs"] == {(("kind", "recipients"),): 1}
    assert found["nixherd_status_timestamp_seconds"] == {(): 1769860800}
    assert found["nixherd_status_duration_seconds"] == {(): 1.5}
    assert found["nixherd_hosts"] == {
        (("state", "same"),): 0, (("state", "differs"),): 1, (("state", "unreachable"),): 1, (("state", "unknown"),): 0,
    }  # fmt: skip


def test_hostile_names_are_labels_and_nothing_else() -> None:
    name = 'a"} 1\nnixherd_host_reachable{host="b"} \\ \ud800\u202e'
    twice = (Space("/", 1, 1), Space("/", 2, 2))
    found = samples(document(replace(WEB, host=name, disks=twice)))
    assert set(found["nixherd_host_reachable"]) == {
        (("host", 'a"} 1\nnixherd_host_reachable{host="b"} \\ \\ud800\\u202e'),)
    }


@pytest.mark.parametrize("time", ["yesterday", "2026-01-31T12:00:00"])
def test_a_time_that_is_none_is_wrong_input(time: str) -> None:
    with pytest.raises(Usage, match=r"is not a time|without its zone"):
        metrics.exposition({**document(WEB), "taken": time})


# Alert rules and the dashboard


METRIC = re.compile(r"\bnixherd_\w+")


def exprs() -> list[str]:
    """Every expression of the dashboard."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    places = [panel["gridPos"] for panel in panels]
    cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"])
             for y in range(at["y"], at["y"] + at["h"])]  # fmt: skip
    assert len(cells) == len({*cells}), "panels lie on each other"
    assert max(x for x, _ in cells) < 24
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"] == source
        assert panel["type"] in ("stat", "timeseries", "table", "bargauge")
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEF"][: len(panel["targets"])]
        assert all(target["datasource"] == source for target in panel["targets"])
    assert {name for expr in exprs() for name in re.findall(r"\$(\w+)", expr)} <= variables.keys()


def test_what_dashboard_and_alerts_ask_for_exists() -> None:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    variable = "nixherd_host_info"
    used = {name for text in (*exprs(), *(rule["expr"] for rule in rules), variable) for name in METRIC.findall(text)}
    assert used <= metrics.NAMES
    cases = yaml.safe_load((TESTS / "alerts_test.yaml").read_text())["tests"]
    fired = {row["alertname"] for case in cases for row in case["alert_rule_test"] if row["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules}, "each rule has a case in which it fires"
    assert all({"summary", "description"} == rule["annotations"].keys() for rule in rules)


def checked(*words: object, input: bytes | None = None) -> str:
    """What promtool says where it is content."""
    try:
        program = promtool.build(cache_directory())
    except promtool.AptMissing as why:
        pytest.skip(str(why))
    done = subprocess.run([program, *map(str, words)], input=input, capture_output=True, timeout=60)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, text
    return text


@pytest.mark.process
@pytest.mark.xdist_group("promtool")
class TestPromtool:
    """What Prometheus itself says."""

    def test_takes_the_metrics(self) -> None:
        text = metrics.exposition(document(WEB, DOWN, replace(WEB, host='a"\n')))
        assert checked("check", "metrics", input=text) == ""

    def test_takes_the_alert_rules(self) -> None:
        assert "SUCCESS" in checked("check", "rules", MONITORING / "alerts.yaml")

    def test_sees_each_alert_fire_when_it_should(self) -> None:
        assert "SUCCESS" in checked("test", "rules", TESTS / "alerts_test.yaml")

    def test_takes_each_expression_of_the_dashboard(self, tmp_path: Path) -> None:
        rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs())]
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        assert f"{len(rules)} rules found" in checked("check", "rules", tmp_path / "rules.yaml")
