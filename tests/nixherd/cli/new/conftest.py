"""A fleet that `nixherd new` adds hosts to."""

from pathlib import Path

import pytest

from nixherd.cli.main import run
from nixherd.nix.commands import Evaluated
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys, repository

ROOT = Path(__file__).parents[4]
TOLD = ("--size", "small", "--key-file", "KEY", "--state-version", "25.11", "--no-eval")
NEW = ["hosts/web/configuration.nix", "hosts/web/disko.nix", "hosts/web/hardware-configuration.nix"]


class Fleet:
    """A fleet in a repository, and the command run on it as its operator would."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self._capfd = root, capfd

    def new(self, *words: str, told: bool = True) -> Ended:
        self._capfd.readouterr()
        key_file = self.root.parent / "me.pub"
        key_file.write_text(f"# mine\n{key('admin').public}\n")
        more = [str(key_file) if word == "KEY" else word for word in TOLD] if told else []
        status = run(
            ["--fleet", str(self.root), "--token-file", str(self.root.parent / "no-token"), "new", *words, *more]
        )
        out, err = self._capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    def state(self) -> tuple[dict[str, bytes], str, str, list[str]]:
        directories = sorted(str(path) for path in self.root.rglob("*") if path.is_dir() and ".git" not in path.parts)
        return contents(self.root), git(self.root, "status", "--porcelain"), git(self.root, "log"), directories


def evaluated(hostname: str, toplevel: str) -> Evaluated:
    return Evaluated(
        host_id=hostname,
        toplevel=toplevel,
        toplevel_drv=f"{toplevel}.drv",
        hostname=hostname,
        disko_script=None,
        disko_drv=None,
        configuration_revision=None,
        devices=("/dev/sda",),
        boot_loader="systemd-boot",
        grub_efi=False,
        guest_agent=True,
        ssh=True,
        root_access=True,
    )


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Fleet:
    """With the secrets of the tests', doc1, igp and dev (110)."""
    nobodys(monkeypatch, tmp_path)
    return Fleet(repository(tmp_path / "fleet"), capfd)
