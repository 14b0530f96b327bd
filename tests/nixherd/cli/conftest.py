"""A fleet's directory whose hypervisor is the emulator, and the command run on it as a person would."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.process import Completed
from nixherd.cli import run_pyinfra
from nixherd.cli.main import run
from nixherd.fleet import load
from nixherd.fleet.read_back import Committed
from nixherd.proxmox.guest import apply as apply_module
from tests.conftest import DEFINITIONS_NIX
from tests.evaluated import remembered
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401  (fixtures)

DEFINITIONS = DEFINITIONS_NIX.replace(
    "  managed = {\n",
    """  managed = {
    kept = { vmid = 111; cores = 2; memory = 2048; disk = "8G"; nixosConfig = "caddy"; readonly = true; };
""",
).replace(
    "  imported = {\n",
    """  imported = {
    igp = { vmid = 109; hostname = "igpu"; specs = { cores = 6; gpu = "passed through"; }; };
""",
)
DEFINITIONS = DEFINITIONS.replace("vmid = 110;", 'vmid = 110; pool = "nixherd";')
DEFINITIONS = DEFINITIONS.replace("{\n  proxmox", '{\n  fleet = "homelab";\n  proxmox', 1)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Nixherd = Callable[..., Ended]
Ask = Callable[..., Ended]


@pytest.fixture
def fleet(
    make_fleet: Callable[..., Path],
    emulator: Emulator,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """dev (110) is managed, kept (111) is readonly, 104 and 109 are imported."""
    monkeypatch.setattr(load, "run", remembered(tmp_path))
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    return make_fleet(definitions=DEFINITIONS.replace('host = "127.0.0.1"', there))


@pytest.fixture
def nixherd(
    fleet: Path,
    emulator: Emulator,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Nixherd:
    """Runs `nixherd vm WORDS`."""
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    for name, value in {"FLEET": fleet, "PROXMOX_TOKEN_FILE": token, "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(apply_module, "PAUSE", 0.05)

    def call(*words: str) -> Ended:
        capfd.readouterr()
        status = run(["vm", *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return call


@pytest.fixture
def ask(nixherd: Nixherd, fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Runs `nixherd WORDS` with a pyinfra that does this; without one, starting it is an error."""

    def call(*words: str, by: Any = None) -> Ended:
        def never(argv: Sequence[str], **_: Any) -> Completed:
            raise AssertionError(f"started: {argv}")

        monkeypatch.setattr(run_pyinfra, "run", by or never)
        capfd.readouterr()
        status = run(words)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return call


def planted_hook(fleet: Path, does: str, at: str = "pre-commit") -> None:
    """A hook that changes the files after they were written."""
    file = fleet / ".git" / "hooks" / at
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{does}\n")
    file.chmod(0o755)


@pytest.fixture
def commit_not_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes the files does so after the commit was read back: the command's look at them comes later."""
    monkeypatch.setattr(Committed, "require_as_made", lambda _: ())


@pytest.fixture
def secrets(fleet: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs `nixherd secrets WORDS` on the fleet of the module that asks for it."""

    def call(*words: str) -> Ended:
        return Ended(run(["--fleet", str(fleet), "secrets", *words]), *capfd.readouterr())

    return call
