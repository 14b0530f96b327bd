"""New hosts of every size in the reference fleet: one evaluation of them, and what provisioning would say of them."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.places import cache_directory
from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from nixherd.nix.commands import Evaluated
from nixherd.nix.declared import files_of
from nixherd.proxmox.answers import Permissions, Version
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.preflight import Survey, host_facts, preflight
from tests.nix_cli import environment, nix_json, try_nix
from tests.nixherd.trust.secrets.repositories import git
from tests.shared import Shared

pytestmark = pytest.mark.xdist_group("new-hosts")

NEW: dict[str, tuple[str, ...]] = {
    "small-1": ("--secret", "api_token", "--secret", "wifi/password"),
    "docker-1": ("--size", "docker", "--purpose", "Stacks of containers"),
    "gpu-1": ("--size", "gpu", "--pci", "igpu", "--user", "nixos"),
    "lxc-1": ("--size", "lxc", "--archive", "local:vztmpl/nixos.tar.xz", "--secret", "one"),
    "metal-1": ("--no-vm", "--device", "/dev/nvme0n1", "--no-home"),
    "home-1": ("--home-only",),
}
BIOS = {"bios-1": ("--purpose", "On SeaBIOS")}
SEABIOS = '    bios = "seabios";\n    specs = {\n      disk = "virtio0";\n'


def use_own_state(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for name in ("PATH", "NIX_CONF_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, environment()[name])
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))


def new(fleet: Path, name: str, *words: str) -> int:
    return run(["--fleet", str(fleet), "--token-file", f"{fleet}-token", "new", name, *words, "--yes", "--json"])


@pytest.fixture(scope="module")
def made(flake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The fleet with all of them, not evaluated yet; the last one's template starts by SeaBIOS, from a virtio disk."""
    place = tmp_path_factory.mktemp("new")
    fleet = place / "fleet"
    shutil.copytree(flake, fleet, symlinks=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_own_state(monkeypatch, place)
        for name, words in NEW.items():
            assert new(fleet, name, *words, "--no-eval") == 0, name
        definitions = fleet / "vms" / "definitions.nix"
        whole = definitions.read_text()
        definitions.write_text(
            whole.replace("    specs = {\n      cores = 2;\n      memory = 2048;\n", SEABIOS, 1).replace(
                '      bios = "ovmf";\n      machine = "q35";\n      disk = "scsi0";\n', "", 1
            )
        )
        for name, words in BIOS.items():
            assert new(fleet, name, *words, "--no-eval") == 0, name
        yield fleet


@pytest.fixture(scope="module")
def found(made: Path) -> dict[str, Evaluated]:
    shared = Shared(load_fleet(made), Path("/nonexistent"))
    names = tuple(sorted({*NEW, *BIOS}))
    try:
        return {name: shared.evaluator.evaluate(names, name) for name in names}
    finally:
        shared.run.close()


def test_each_evaluates_to_what_it_was_made_for(made: Path, found: dict[str, Evaluated]) -> None:
    facts = {name: host_facts(evaluated) for name, evaluated in found.items() if name != "home-1"}
    assert {name: (str(evaluated.boot_loader), evaluated.disko_devices) for name, evaluated in facts.items()} == {
        **dict.fromkeys(("small-1", "docker-1", "gpu-1"), ("systemd-boot", ("/dev/sda",))),
        "bios-1": ("grub", ("/dev/vda",)),
        "metal-1": ("systemd-boot", ("/dev/nvme0n1",)),
        "lxc-1": ("None", ()),
    }
    assert all(
        evaluated.ssh and evaluated.root_access and evaluated.hostname == name for name, evaluated in facts.items()
    )
    assert {name for name, evaluated in facts.items() if evaluated.guest_agent} == {
        "small-1",
        "docker-1",
        "gpu-1",
        "bios-1",
    }
    assert found["home-1"].toplevel.endswith("-home-manager-generation")
    secrets = {name: files_of(evaluated.declared.secrets) for name, evaluated in found.items()}
    assert secrets["small-1"] == ("secrets/small-1.yaml",)
    assert secrets["lxc-1"] == ("secrets/lxc-1.yaml",)
    assert secrets["docker-1"] == ()


def test_validation_and_nix_warn_of_nothing(made: Path, found: dict[str, Evaluated]) -> None:
    fleet = load_fleet(made)
    assert fleet.warnings == ()
    warnings = nix_json(
        *("eval", "--json", "--no-write-lock-file", f"{made}#nixosConfigurations", "--apply"),
        f"cs: map (n: {{ w = cs.${{n}}.config.warnings; d = cs.${{n}}.config.virtualisation.docker.enable or false; "
        f"u = cs.${{n}}.config.users.users.nixos.extraGroups or []; }}) "
        f"[{' '.join(json.dumps(name) for name in sorted({*NEW, *BIOS} - {'home-1'}))}]",
    )
    assert all(each["w"] == [] for each in warnings)
    bios, docker, gpu, *_ = warnings
    assert (bios["d"], docker["d"]) == (False, True)
    assert {"video", "render", "wheel"} <= set(gpu["u"])
    assert try_nix("flake", "show", made).returncode == 0  # by what git knows of
    tracked = git(made, "ls-files").split()
    assert all(f"hosts/small-1/{name}" in tracked for name in ("configuration.nix", "disko.nix", "home.nix"))


class _Everything(Permissions):
    def allows(self, path: str, privilege: str) -> bool:
        return True


@pytest.mark.parametrize(("name", "bios", "disk"), [("small-1", "ovmf", "scsi0"), ("bios-1", "seabios", "virtio0")])
def test_provisioning_has_nothing_against_it(
    made: Path, found: dict[str, Evaluated], name: str, bios: str, disk: str
) -> None:
    """Firmware, boot loader and disk name are the template's."""
    fleet = load_fleet(made)
    config = VmConfig({
        **{"name": "template", "template": 1, "bios": bios, "boot": f"order={disk}", "agent": "1", "memory": "2048"},
        **{disk: "nvmeprom:base-9002-disk-0,size=3G", "ide2": "nvmeprom:vm-9002-cloudinit,media=cdrom"},
        **{"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0", "scsihw": "virtio-scsi-pci"},
    })  # fmt: skip
    seen = Survey(Version("9.0.3", "9.0"), ("prom",), _Everything({}), config, None, {})
    host = fleet.hosts[name]
    findings = preflight(fleet, fleet.vms[name], host, host_facts(found[name]), seen)
    assert findings == ()
    other = VmConfig({**config.values, "bios": "seabios" if bios == "ovmf" else "ovmf"})
    wrong = Survey(Version("9.0.3", "9.0"), ("prom",), _Everything({}), other, None, {})
    assert len(preflight(fleet, fleet.vms[name], host, host_facts(found[name]), wrong)) == 1


@pytest.fixture
def alone(flake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fleet in a directory of a repository."""
    use_own_state(monkeypatch, tmp_path)
    fleet = shutil.copytree(flake, tmp_path / "my repository" / "fleet", symlinks=True, ignore=lambda *_: [".git"])
    git(fleet.parent, "init", "-q")
    git(fleet.parent, "add", "-A")
    return fleet


def test_it_is_evaluated_before_anything_is_written(alone: Path, capfd: pytest.CaptureFixture[str], made: Path) -> None:
    """What fails there leaves nothing; and where no module lets root in, the host's own file does."""
    base = alone / "modules" / "nixos" / "profiles" / "base.nix"
    whole = base.read_text()
    base.write_text(whole.replace("networking.hostName = mkIf", 'networking.hostName = mkIf true "other"; _x = mkIf'))
    before = git(alone, "status", "--porcelain"), sorted(alone.rglob("*"))
    assert new(alone, "web", "--size", "small") == 4
    err = capfd.readouterr().err
    assert "nothing was changed (--no-eval leaves the evaluation out)" in err
    assert (git(alone, "status", "--porcelain"), sorted(alone.rglob("*"))) == before
    base.write_text(
        whole.replace('{root.openssh.authorizedKeys.keys = mkIf (config.nixherd.access.kind == "shell") keys;}', "{}")
    )
    hosts = alone / "hosts.nix"
    hosts.write_text(hosts.read_text().replace("    sudoPasswordless = true;\n", ""))
    assert new(alone, "web", "--size", "small") == 0
    done = json.loads(capfd.readouterr().out)
    assert done["evaluated"]
    assert done["system"].endswith("-nixos-system-web-26.05.lab")
    own_file = (alone / "hosts" / "web" / "configuration.nix").read_text()
    assert "keys = (import ../../hosts.nix).web.authorizedKeys;" in own_file


def _gate() -> str:
    """Where the gate's programs are built, where the lab builds them."""
    if importlib.util.find_spec("lab.setup.gate") is None:
        return ""
    gate = importlib.import_module("lab.setup.gate")
    try:
        return str(gate.build(cache_directory()))
    except gate.CargoMissing:
        return ""


@pytest.mark.parametrize("words", [("alejandra", "--check", "--quiet"), ("deadnix", "--fail")])
def test_what_is_generated_is_clean(made: Path, words: tuple[str, ...]) -> None:
    program = shutil.which(words[0], path=f"{_gate()}:{environment()['PATH']}")
    if program is None:
        pytest.skip(f"{words[0]} is not there")
    paths = [str(path) for name in (*NEW, *BIOS) for path in sorted((made / "hosts" / name).iterdir())]
    paths += [str(made / "hosts.nix"), str(made / "vms" / "definitions.nix")]
    done = subprocess.run([program, *words[1:], *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
