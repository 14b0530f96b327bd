"""`nixherd metrics` and `nixherd drift`: of a status that is made up, or kept in a file, and what they write."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from nixherd.base.errors import FleetError
from nixherd.base.terminal import visible
from nixherd.cli.main import run
from nixherd.overview.document import Difference, HostView, Kind, Mend, Overview, Reach
from tests.nixherd.cli.conftest import Ask
from tests.nixherd.overview.test_metrics import DOWN, WEB
from tests.security.hostile import STRINGS, TEXT, obeyed

MENDED = replace(
    WEB,
    tags=("web",),
    differences=(
        Difference(Kind.REBOOT, "waits for a reboot", Mend.REBOOT, ("nixherd", "reboot", "web01")),
        Difference(Kind.SYSTEM, "runs a, and is to run b", Mend.DEPLOY, ("nixherd", "deploy", "web01")),
        Difference(Kind.UNITS, "1 unit failed", None, ("nixherd", "exec", "web01", "--", "systemctl", "--failed")),
    ),
)


def overview(*hosts: HostView) -> Overview:
    return Overview("/fleet", "2026-01-31T12:00:00Z", "b" * 40, hosts)


class Gather:
    """In the place of what asks machines: gives these overviews, one after the other, and keeps how it was asked."""

    def __init__(self, *overviews: Overview | FleetError) -> None:
        self.overviews, self.calls = list(overviews), list[tuple[tuple[str, ...], dict[str, Any]]]()

    def __call__(self, front: Any, hosts: Any = (), **how: Any) -> Overview:
        self.calls.append((tuple(hosts), {name: value for name, value in how.items() if name != "tell"}))
        result = self.overviews.pop(0)
        if isinstance(result, FleetError):
            raise result
        return result


@pytest.fixture
def gathers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Gather]:
    for name in ("XDG_STATE_HOME", "FLEET"):  # HOME leads to the cache of the lab's programs
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))

    def fake(*overviews: Overview | FleetError) -> Gather:
        gather = Gather(*overviews)
        module = ModuleType("nixherd.cli.gathering")
        vars(module)["gather"] = gather
        monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
        return gather

    return fake


def kept(tmp_path: Path, *hosts: HostView) -> str:
    """A file as `nixherd status --json` writes it."""
    file = tmp_path / "status.json"
    file.write_text(json.dumps(overview(*hosts).to_json()))
    return str(file)


# Metrics


def test_metrics_are_of_what_was_gathered(gathers: Callable[..., Gather], capsys: pytest.CaptureFixture[str]) -> None:
    gather = gathers(overview(WEB, DOWN))
    words = ["metrics", "web*", "--exclude", "db", "--no-eval", "--no-vm", "--data", "a=b"]
    assert run(words) == 0, "also where something differs: alerts judge"
    out = capsys.readouterr().out
    assert "nixherd_host_reachable" in {family.name for family in text_string_to_metric_families(out)}
    [(hosts, how)] = gather.calls
    assert hosts == ("web*",)
    assert how == {"evaluate": False, "vm": False, "exclude": ("db",), "data": ("a=b",)}


def test_a_file_for_node_exporter_is_there_whole_and_readable(tmp_path: Path) -> None:
    file, source = tmp_path / "nixherd.prom", kept(tmp_path, WEB)
    file.write_text("old\n")
    before = file.stat().st_ino
    assert run(["metrics", "--from", source, "--output", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.stat().st_ino != before, "it was renamed there, not written in place"
    assert 'nixherd_host_reachable{host="web01"} 1.0\n' in file.read_text()
    assert {each.name for each in tmp_path.iterdir()} == {"nixherd.prom", "status.json"}


def test_what_cannot_be_gathered_leaves_the_file_of_before(
    gathers: Callable[..., Gather], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gathers(FleetError("/fleet: does not load"))
    file = tmp_path / "nixherd.prom"
    file.write_text("old\n")
    assert run(["metrics", "--output", str(file)]) == 4
    assert file.read_text() == "old\n"
    assert "does not load" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("metrics.txt", "node_exporter reads files that end in .prom"),
        (".prom", "node_exporter reads files that end in .prom"),
        ("link.prom", "is a symbolic link, which is not followed"),
        ("lost.prom", "is a symbolic link, which is not followed"),
        ("none/a.prom", "is not a directory; make it"),
        ("directory.prom", "is not a file; name another"),
    ],
)
def test_a_file_that_would_be_of_no_use_is_refused(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], gathers: Callable[..., Gather]
) -> None:
    gather = gathers()
    (tmp_path / "target").write_text("mine\n")
    (tmp_path / "link.prom").symlink_to(tmp_path / "target")
    (tmp_path / "lost.prom").symlink_to(tmp_path / "nothing")
    (tmp_path / "directory.prom").mkdir()
    assert run(["metrics", "--output", str(tmp_path / name)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert why in line
    assert gather.calls == [], "before anybody is asked"
    assert (tmp_path / "target").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("words", "status", "hosts"),
    [
        ([], 0, {"web01", "down"}),
        (["web01"], 0, {"web01"}),
        (["web"], 0, {"web01"}),
        (["nixos", "--exclude", "web"], 0, {"down"}),
        (["db"], 2, set()),
    ],
)
def test_hosts_of_a_file(
    words: list[str], status: int, hosts: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = kept(tmp_path, replace(WEB, tags=("web",)), replace(DOWN, hostname="down"))
    assert run(["metrics", *words, "--from", source]) == status
    out = capsys.readouterr().out
    families = [each for each in text_string_to_metric_families(out) if each.name == "nixherd_host_reachable"]
    assert {sample.labels["host"] for family in families for sample in family.samples} == hosts


@pytest.mark.parametrize(
    ("content", "more", "why"),
    [
        (None, [], "status.json: No such file or directory"),
        (b"\xff", [], "is not UTF-8 text"),
        (b"{", [], "is not JSON"),
        (b"{}", ["--no-vm"], "leave out --no-eval, --no-vm and --data"),
    ],
)
def test_a_file_that_is_no_status_is_one_line(
    content: bytes | None, more: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "status.json"
    if content is not None:
        file.write_bytes(content)
    for command in ("metrics", "drift"):
        assert run([command, "--from", str(file), *more]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert why in line


def test_alerts_and_the_dashboard_are_there_where_the_wheel_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["metrics", "--print", "alerts"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["groups"]
    assert run(["metrics", "--print", "dashboard"]) == 0
    assert json.loads(capsys.readouterr().out)["panels"]


# docs/machines.md


def test_the_overview_is_written_where_it_changed(ask: Ask, fleet: Path, tmp_path: Path) -> None:
    source, file = kept(tmp_path, replace(WEB, host="dev")), fleet / "docs" / "machines.md"
    dry = ask("overview", "--from", source, "--dry-run")
    assert (dry.status, dry.json["steps"], file.exists()) == (0, ["write docs/machines.md"], False)
    done = ask("overview", "--from", source, "--no-commit", "--table")
    assert (done.status, done.out) == (0, "write docs/machines.md\n")
    assert "| dev | differs | system, units |" in file.read_text()
    before = file.stat()
    again = ask("overview", "--from", source, "--no-commit", "--json")
    assert (again.status, again.json["changed"], file.stat().st_mtime_ns) == (0, False, before.st_mtime_ns)


@pytest.mark.parametrize("path", ["/etc/motd", "../motd", ""])
def test_the_overview_is_a_file_of_the_fleet(
    path: str, ask: Ask, tmp_path: Path
) -> None:  # fmt: skip
    done = ask("overview", "--from", kept(tmp_path, WEB), "--docs-file", path)
    assert done.status == 2
    assert "is not a path below the fleet's directory" in done.err


def test_the_overview_is_not_written_through_a_link(ask: Ask, fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine\n")
    (fleet / "docs").mkdir()
    (fleet / "docs" / "machines.md").symlink_to(tmp_path / "mine")
    assert ask("overview", "--from", kept(tmp_path, WEB), "--no-commit").status != 0
    assert (tmp_path / "mine").read_text() == "mine\n"


# Drift


def test_drift_is_a_plan(gathers: Callable[..., Gather], capsys: pytest.CaptureFixture[str]) -> None:
    gathers(overview(MENDED, DOWN), overview(MENDED, DOWN))
    assert run(["drift", "--table"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["host", "mend"], ["web01", "deploy"], ["web01", "reboot"], ["web01", "by"],
    ]  # fmt: skip
    assert "nixherd exec web01 -- systemctl --failed" in out
    assert "down: not reached: system not known: nobody answers" in err
    assert run(["drift", "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert [(row["host"], row["mend"]) for row in plan["mends"]] == [("web01", "deploy"), ("web01", "reboot")]
    assert [row["kind"] for row in plan["by_hand"]] == ["units"]
    assert plan["not_judged"] == [{"host": "down", "sections": ["reach", "system"], "why": "nobody answers"}]
    assert plan["exit"] == 1


@pytest.mark.parametrize("words", [["drift", "--table"], ["drift", "--json"], ["metrics"]], ids=" ".join)
def test_what_machines_say_is_shown_and_not_obeyed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    differences = tuple(Difference(Kind.UNITS, TEXT, mend, (TEXT,)) for mend in (None, Mend.DEPLOY))
    host = replace(WEB, host=TEXT, differences=differences, unknown={"units": TEXT}, reach=Reach(True, why=TEXT))
    run([*words, "--from", kept(tmp_path, host)])
    out, err = capsys.readouterr()
    assert obeyed(out + err) == []
    assert visible(STRINGS[0]) in out + err


@pytest.mark.parametrize(
    ("host", "status", "text"),
    [
        (replace(WEB, differences=()), 0, "nothing differs"),
        (DOWN, 4, "nothing that could be judged differs"),
    ],
    ids=["same", "down"],
)
def test_drift_ends_as_the_status_does(
    host: HostView, status: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["drift", "--table", "--from", kept(tmp_path, host)]) == status
    assert text in capsys.readouterr().err
