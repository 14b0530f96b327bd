"""`nixherd status`: what is shown of a document, which hosts, in which order, and with which status it ends."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli import status
from nixherd.cli.main import run
from nixherd.overview.document import Difference, Hypervisor, Kind, Mend, Overview, Reach, Revision, State, Units
from tests.overviews import host, overview

SAME = host("same", revision=Revision("b" * 40, "b" * 40, 0))
OLD = host(
    "old",
    state=State.DIFFERS,
    revision=Revision("b" * 40, "a" * 40, 12),
    differences=(Difference(Kind.SYSTEM, "runs a, and is to run b", Mend.DEPLOY, ("nixherd", "deploy", "old")),),
)
FAILED = host(
    "failed",
    state=State.DIFFERS,
    revision=Revision("b" * 40, "c" * 40, 3),
    units=Units(("a.service",)),
    differences=(
        Difference(Kind.UNITS, "1 unit failed: a.service", None, ("nixherd", "exec", "failed", "--", "systemctl")),
        Difference(Kind.REBOOT, "waits for a reboot: kernel", Mend.REBOOT, ("nixherd", "reboot", "failed")),
    ),
)
GONE = host("gone", state=State.UNREACHABLE, reach=Reach(False, "10.0.0.1", "no route", "2026-01-30T12:00:00Z", 86400))
DARK = host("dark", state=State.UNKNOWN, units=Units(None), unknown={"units": "systemctl did not say"})
ALL = (SAME, OLD, FAILED, GONE, DARK)


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_STATE_HOME", "FLEET"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))


class Looks:
    """In the place of what asks machines."""

    def __init__(self, *overviews: Overview) -> None:
        self.overviews, self.calls = list(overviews), list[dict[str, Any]]()

    def __call__(self, front: Any, hosts: Any = (), **how: Any) -> Overview:
        self.calls.append({"hosts": tuple(hosts), **how})
        if not self.overviews:
            raise KeyboardInterrupt
        return self.overviews.pop(0)


def looks(monkeypatch: pytest.MonkeyPatch, *overviews: Overview) -> Looks:
    made = Looks(*overviews)
    for name in ("gather", "gather_afresh"):
        monkeypatch.setattr(status, name, made)
    return made


def shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str, **changes: Any
) -> tuple[int, str]:
    looks(monkeypatch, overview(**{"hosts": ALL, **changes}))
    ended = run(["status", *words])
    return ended, capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"hosts": (SAME,)}, 0),
        ({"hosts": (SAME, OLD)}, 1),
        ({"hosts": (SAME, GONE)}, 4),
        ({"hosts": (SAME, DARK)}, 5),
        ({"hosts": (DARK, GONE)}, 4),
        ({"hosts": ALL}, 1),
        ({"hosts": ()}, 0),
        ({"hosts": (SAME,), "hypervisor": Hypervisor("unreachable", "pve:8006", "no route")}, 4),
        ({"hosts": (SAME,), "hypervisor": Hypervisor("not asked", "pve:8006")}, 0),
        ({"hosts": (SAME,), "differences": (Difference(Kind.RECIPIENTS, "a.yaml: -alice", Mend.REKEY),)}, 1),
    ],
)
def test_the_status_is_the_documents(
    changes: dict[str, Any], ends: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended, text = shown(monkeypatch, capfd, "--json", **changes)
    assert ended == ends == json.loads(text)["exit"]


def test_what_differs_and_what_is_not_known_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _, text = shown(monkeypatch, capfd, "--table")
    lines = text.splitlines()
    assert "old: system: runs a, and is to run b; `nixherd deploy old`" in lines
    assert "dark: units: unknown: systemctl did not say" in lines
    [gone] = [line for line in lines if line.startswith("gone: ")]
    assert gone.startswith("gone: unreachable: no route; last seen ")
    assert lines[-1] == f"1 same, 2 differs, 1 unreachable, 1 unknown; {'b' * 12}"
    assert "same: " not in text


@pytest.mark.parametrize(
    ("words", "names", "ends"),
    [
        (["--needs", "reboot"], ["failed"], 1),
        (["--needs", "reboot", "--needs", "deploy"], ["failed", "old"], 1),
        (["--needs", "adopt"], [], 0),
        (["--behind"], ["failed", "old"], 1),
        (["--failed"], ["failed"], 1),
        (["--failed", "--needs", "deploy"], [], 0),
    ],
)
def test_hosts_are_chosen_by_what_they_need(
    words: list[str], names: list[str], ends: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended, text = shown(monkeypatch, capfd, "--json", *words)
    assert (sorted(each["host"] for each in json.loads(text)["hosts"]), ended) == (names, ends)


def test_columns_and_their_order(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    _, text = shown(monkeypatch, capfd, "--table", "--columns", "host,behind,failed", "--sort", "behind")
    rows = [line.split() for line in text.splitlines()[:6]]
    assert rows == [
        ["host", "behind", "failed"],
        ["dark", "0", "unknown"],
        ["gone", "0", "none"],
        ["same", "0", "none"],
        ["failed", "3", "a.service"],
        ["old", "12", "none"],
    ]


def test_every_column_has_a_word_for_what_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = replace(status_of_nothing(), host="bare")
    _, text = shown(monkeypatch, capfd, "--table", "--columns", ",".join(status.COLUMNS), hosts=(bare, *ALL))
    assert "None" not in text
    assert "unknown" in text


def status_of_nothing() -> Any:
    from nixherd.overview.document import HostView

    return HostView("bare", None, "nixos", State.UNKNOWN)


WRONG = ("--columns nosuch", "--columns ,", "--sort nosuch", "--needs nosuch", "--watch 0", "--backup-age 8")


@pytest.mark.parametrize("words", [each.split() for each in WRONG])
def test_what_cannot_be_meant_is_wrong_usage(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = looks(monkeypatch, overview())
    assert run(["status", *words]) == 2
    assert made.calls == []
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_it_looks_again_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    looks(monkeypatch, overview(hosts=(OLD,)), overview(hosts=(SAME,)))
    assert run(["status", "--watch", "5", "--json"]) == 0
    documents = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [each["hosts"][0]["host"] for each in documents] == ["old", "same"]


def test_how_it_is_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    made = looks(monkeypatch, overview())
    run(["status", "web", "--exclude", "dev", "--no-eval", "--no-vm", "--json"])
    [call] = made.calls
    assert (call["hosts"], call["exclude"], call["evaluate"], call["vm"]) == (("web",), ("dev",), False, False)


def test_the_schema_is_printed_and_nobody_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = looks(monkeypatch)
    assert run(["status", "--schema"]) == 0
    assert json.loads(capfd.readouterr().out)["title"] == "nixherd status"
    assert made.calls == []
