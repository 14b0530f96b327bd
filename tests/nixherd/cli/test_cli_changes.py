"""What a plan would change, for people."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.summary import changes
from nixherd.deploy.report import HostReport, Outcome


@pytest.fixture
def systems(tmp_path: Path) -> tuple[str, str]:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "old"), str(tmp_path / "new")


def planned(host: str, old: str, new: str) -> HostReport:
    sizes: dict[str, Any] = {"size_before": 1 << 20, "size_after": 2 << 20}
    return HostReport(host, Outcome.PLANNED, found={"old": old, "new": new, "diff": ["jq: 1.6 → 1.7"], **sizes})


def program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def test_nvd_says_it_where_there_is_one_and_dix_where_there_is_none(
    systems: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    one = planned("web", *systems)
    assert "  jq: 1.6 → 1.7" in list(changes([one]))
    program(tmp_path / "bin", "dix", 'echo "dix $*"; echo')
    said = list(changes([one]))
    assert f"  dix {systems[0]} {systems[1]}" in said
    assert not any("jq" in line for line in said)
    assert "  closure 1 MiB → 2 MiB" in said
    program(tmp_path / "bin", "nvd", 'echo "nvd $*"')
    assert f"  nvd --color=never diff {systems[0]} {systems[1]}" in list(changes([one]))
    program(tmp_path / "bin", "nvd", "exit 1")
    assert f"  dix {systems[0]} {systems[1]}" in list(changes([one]))


def test_what_runs_and_is_not_here_is_told_by_us(
    systems: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    program(tmp_path / "bin", "nvd", "echo nvd")
    assert "  jq: 1.6 → 1.7" in list(changes([planned("web", str(tmp_path / "gone"), systems[1])]))


def test_hosts_with_nothing_but_another_revision_are_grouped() -> None:
    old, new = "4f2c" * 10, "9ab1" * 10
    sizes: dict[str, Any] = {"size_before": 1, "size_after": 1, "diff": ["nixos-version: rebuilt"]}

    def only(host: str, outcome: Outcome, was: str | None = old, **more: Any) -> HostReport:
        return HostReport(host, outcome, found={"revision_only": True, "old_revision": was, "revision": new, **more})

    said = list(
        changes(
            [
                only("a", Outcome.REVISION_ONLY),
                only("in-it", Outcome.PLANNED, **sizes),
                only("b", Outcome.REVISION_ONLY),
                only("unknown", Outcome.REVISION_ONLY, None),
            ]
        )
    )
    part = "; it is a part of the system (system.configurationRevision), which is activated for it"
    assert said == [
        *("a, b:", f"  revision only: {old[:12]} → {new[:12]}", ""),
        *("in-it:", f"  revision only: {old[:12]} → {new[:12]}{part}", ""),
        *("unknown:", f"  revision only: unknown → {new[:12]}", ""),
    ]


def test_hosts_with_the_same_change_are_shown_once_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hostname is in the system's name, and makes it some bytes larger."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def host(name: str, hostname: str, size: str, package: str = "jq: 1.6 → 1.7, +1 KiB", **more: Any) -> HostReport:
        found: dict[str, Any] = {"size_before": 1 << 20, "size_after": 2 << 20, "services": [f"restart {name}.service"]}
        for key in ("old", "new"):
            found[key] = f"/nix/store/{'0' * 32}-nixos-system-{hostname}-26.05.20260714"
        found["diff"] = [package, f"nixos-system-{hostname}: 26.05.20260714 rebuilt, {size}"]
        return HostReport(name, Outcome.PLANNED, found={**found, **more})

    lines = list(
        changes(
            [
                host("web1", "web-one", "+12 B"),
                host("web2", "web-two.example", "+17 B"),
                host("db", "db", "+12 B", "jq: 1.6 → 1.8, +1 KiB"),
                host("boots", "boots", "+12 B", reboot_for=["kernel"]),
            ]
        )
    )
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "web1, web2:",
        "db:",
        "boots:",
    ]
    assert lines[1:6] == [
        "  jq: 1.6 → 1.7, +1 KiB",
        "  nixos-system-HOST: 26.05.20260714 rebuilt",
        "  closure 1 MiB → 2 MiB",
        "  needs a reboot: no",
        "  restart HOST.service",
    ]
    assert "  nixos-system-db: 26.05.20260714 rebuilt, +12 B" in lines
