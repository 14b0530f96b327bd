"""Where secrets are: the nearest `.sops.yaml` from each file upwards, in whatever way the repository is laid out."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.changeset import changing
from nixherd.fleet.load import load_fleet
from nixherd.fleet.tree import opened, read
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.recipients import trusted
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS, TREES
from tests.nixherd.trust.secrets.places import at_the_top, below
from tests.nixherd.trust.secrets.repositories import (
    BEFORE,
    SECRETS,
    WITH_DEV,
    admission,
    git,
    identity_of,
    nobodys,
    recipients,
    repository,
    sops,
)
from tests.preloaded.programs import Programs
from tests.shared import Shared

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobodys(monkeypatch, tmp_path)


def enrolled(fleet: Path, place: Path, *declared: str) -> tuple[str, ...]:
    """Enrol dev, with what it declares; return the paths that changed."""
    shared = Shared(load_fleet(fleet), Path("/nonexistent"))
    with changing(fleet) as changes:
        loaded = load_fleet(fleet)
        change = trusted(
            Wanted(loaded, Secrets.load(fleet)), loaded.hosts["dev"], key("dev").public, admission(*declared)
        )
        path = identity_of(place)
        done = publish(changes, change, "dev joins", sops=lambda: operator(shared.run, path), say=lambda line: None)
    shared.run.close()
    return done.paths


def worktree(place: Path) -> Path:
    git(below(place / "other"), "worktree", "add", "-q", str(place / "fleet"), "-b", "work")
    return place / "fleet" / "nix"


def link(place: Path) -> Path:
    (place / "link").symlink_to(below(place / "fleet"))
    return place / "link"


def submodule(place: Path) -> Path:
    """The fleet's repository as a submodule of another one."""
    top = below(place / "other").parent
    (place / "fleet").mkdir()
    git(place / "fleet", "init", "-q")
    git(place / "fleet", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(top), "sub")
    for name, value in (("name", "admin"), ("email", "admin@invalid")):
        git(place / "fleet" / "sub", "config", f"user.{name}", value)
    return place / "fleet" / "sub" / "nix"


def beside(place: Path) -> Path:
    return repository(place / "fleet")


def top(place: Path) -> Path:
    return at_the_top(place / "fleet")


def subdirectory(place: Path) -> Path:
    return below(place / "fleet")


def deep(place: Path) -> Path:
    return below(place / "fleet", "infra/nix")


@pytest.mark.parametrize("make", [beside, top, subdirectory, deep, worktree, link, submodule])
def test_the_same_results_wherever_the_fleet_is(make: Callable[[Path], Path], tmp_path: Path) -> None:
    fleet = make(tmp_path)
    secrets = Secrets.load(fleet)
    assert len(secrets.stores) == 1
    assert set(secrets.files) == {f"secrets/{name}" for name in SECRETS}
    assert secrets.plan(load_fleet(fleet)).rekeys == ()
    assert secrets.plan(load_fleet(fleet)).findings == ()
    assert recipients(fleet) == BEFORE
    commits = git(fleet, "rev-list", "--count", "HEAD")
    changed = enrolled(fleet, tmp_path)
    [config] = secrets.configs
    others = (name for name in SECRETS if name != "ssh_key_admin")
    assert set(changed) == {config, "hosts.nix", *(f"secrets/{name}" for name in others)}
    assert recipients(fleet) == WITH_DEV
    assert int(git(fleet, "rev-list", "--count", "HEAD")) == int(commits) + 1
    assert git(fleet, "status", "--porcelain") == ""
    assert sops(fleet, "decrypt", "secrets/common.yaml", identity="dev").stdout
    assert enrolled(fleet, tmp_path) == ()


def test_each_file_belongs_to_the_nearest_configuration(tmp_path: Path) -> None:
    """Also where sops is called in the file's directory, which looks upwards from there."""
    fleet = at_the_top(tmp_path / "fleet")
    inner = fleet / "hosts" / "dev" / "secrets"
    inner.mkdir(parents=True)
    (inner / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('other').recipient} # other\n")
    (inner / "own.yaml").write_text("a: 1\n")
    sops(inner, "encrypt", "--in-place", "own.yaml")
    (fleet / "hosts" / "dev" / "plain.yaml").write_text("a: 1\n")
    secrets = Secrets.load(fleet)
    assert secrets.configs == (".sops.yaml", "hosts/dev/secrets/.sops.yaml")
    assert "hosts/dev/secrets/own.yaml" in secrets.files
    found = secrets.store_of("hosts/dev/secrets/own.yaml"), secrets.store_of("hosts/dev/x.yaml")
    assert [each.config for each in found if each] == ["hosts/dev/secrets/.sops.yaml", ".sops.yaml"]
    assert secrets.plan(load_fleet(fleet)).rekeys == ()
    assert Secrets.load(fleet, "hosts/dev/secrets").configs == ("hosts/dev/secrets/.sops.yaml",)


def test_a_configuration_beside_the_fleet_is_one_of_its_repository(tmp_path: Path) -> None:
    fleet = below(tmp_path / "fleet")
    (fleet.parent / "secrets").mkdir()
    git(fleet.parent, "mv", "nix/secrets", "secrets/fleet")
    text = (fleet.parent / ".sops.yaml").read_text().replace("^nix/secrets/", "^fleet/")
    git(fleet.parent, "mv", ".sops.yaml", "secrets/.sops.yaml")
    (fleet.parent / "secrets" / ".sops.yaml").write_text(text)
    git(fleet.parent, "commit", "-qam", "moved")
    secrets = Secrets.load(fleet)
    assert secrets.configs == ("../secrets/.sops.yaml",)
    assert set(secrets.files) == {f"../secrets/fleet/{name}" for name in SECRETS}
    assert "../secrets/fleet/common.yaml" in enrolled(fleet, tmp_path, "../secrets/fleet/common.yaml")
    assert git(fleet, "status", "--porcelain") == ""


def test_nothing_above_the_repository_is_read_or_written(tmp_path: Path) -> None:
    fleet = below(tmp_path / "outer" / "fleet")
    (tmp_path / "outer" / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('other').recipient}\n")
    assert Secrets.load(fleet).configs == ("../.sops.yaml",)
    for path in ("../../.sops.yaml", "../nix/../../.sops.yaml", "secrets/../../../.sops.yaml", "..", "../.git/config"):
        with pytest.raises(FleetError, match=r"is not a path below|belongs to git"):
            read(fleet, path)
        with opened(fleet) as tree, pytest.raises(FleetError, match=r"is not a path below|belongs to git"):
            tree.replace(path, b"")


@pytest.mark.parametrize("directory", ["..", "../..", "secrets/../..", "/etc", "secrets", "nosuch"])
def test_a_directory_without_one_is_said(directory: str, tmp_path: Path) -> None:
    fleet = at_the_top(tmp_path / "outer")
    with pytest.raises(FleetError, match=r"\.sops\.yaml: missing|is not a directory of the fleet's repository"):
        Secrets.load(fleet, directory)
    assert Secrets.load(below(tmp_path / "other"), "..").configs == ("../.sops.yaml",)


def test_without_git_the_fleets_directory_is_all_there_is(tmp_path: Path) -> None:
    fleet = at_the_top(tmp_path / "fleet")
    subprocess.run(["rm", "-rf", str(fleet / ".git")], env=environment(), check=True)
    (tmp_path / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('other').recipient}\n")
    secrets = Secrets.load(fleet)
    assert secrets.configs == (".sops.yaml",)
    assert set(secrets.files) == {f"secrets/{name}" for name in SECRETS}


def test_a_name_that_sops_does_not_read_is_said(tmp_path: Path) -> None:
    fleet = at_the_top(tmp_path / "fleet")
    git(fleet, "mv", ".sops.yaml", ".sops.yml")
    done = sops(fleet, "updatekeys", "--yes", "secrets/common.yaml", check=False)
    assert "must be called" in done.stderr + done.stdout
    secrets = Secrets.load(fleet)
    assert not secrets
    assert secrets.findings == (".sops.yml: sops does not read it; call it .sops.yaml",)


def test_a_submodule_is_another_repository(tmp_path: Path) -> None:
    """What is in it belongs to no configuration here, and a change of the rest leaves it alone."""
    other = at_the_top(tmp_path / "other")
    fleet = at_the_top(tmp_path / "fleet")
    git(fleet, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "private")
    git(fleet, "commit", "-qm", "a submodule")
    git(tmp_path, "clone", "-q", str(other), str(fleet / "clone"))
    secrets = Secrets.load(fleet)
    assert secrets.configs == (".sops.yaml",)
    assert set(secrets.files) == {f"secrets/{name}" for name in SECRETS}
    for place in ("private", "clone"):
        path = f"{place}/secrets/common.yaml"
        assert secrets.store_of(path) is None
        with pytest.raises(FleetError, match=rf"{path}: is in {place}, a repository of its own \(a submodule\)"):
            secrets.require_store(path)
    assert enrolled(fleet, tmp_path)
    assert git(fleet / "private", "status", "--porcelain") == ""


ROOT = Path(__file__).parents[4]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_anywhere_a_fleet_below_its_repositorys_top_is_whole_after_the_next_run(
    programs: Programs, tmp_path: Path
) -> None:
    """The .sops.yaml above it, too."""

    def enrol(fleet: Path, last: int | None = None) -> subprocess.CompletedProcess[str]:
        outside = fleet.parent.parent
        words: list[str | Path] = ["nixherd-python", "-m", "tests.nixherd.trust.secrets.enrolling", fleet]
        words += [identity_of(outside), outside / "state", *([str(last)] if last else [])]
        env = programs({**os.environ, **environment()})
        return subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def is_done(fleet: Path) -> None:
        assert recipients(fleet) == WITH_DEV
        assert key("dev").recipient in (fleet.parent / ".sops.yaml").read_text()
        assert git(fleet, "log", "--format=%s").splitlines() == ["fleet: dev joins", "moved", "the fleet"]
        assert git(fleet, "status", "--porcelain", "--ignored") == ""
        state = fleet.parent.parent / "state"
        assert [each.name for each in state.glob("nixherd/.trees/*/*")] == ["lock"]

    whole = below(tmp_path / "whole" / "fleet")
    effects = int(enrol(whole).stdout.split()[-1])
    is_done(whole)
    for point in sorted({1 + round(at * (effects - 1) / 19) for at in range(20)}):
        fleet = below(tmp_path / str(point) / "fleet")
        killed = enrol(fleet, point)
        assert killed.returncode == -9, f"{point}: {killed.stderr}"
        assert set(recipients(fleet).keys()) == set(SECRETS)  # each is whole
        done = enrol(fleet)
        assert done.returncode == 0, f"killed at effect {point} of {effects}, then: {done.stderr}"
        is_done(fleet)


@pytest.mark.parametrize("names", TREES.values(), ids=TREES)
def test_sops_called_in_a_files_directory_takes_the_same_configuration(names: tuple[str, ...], tmp_path: Path) -> None:
    """What it encrypts there is for whom our rule names."""
    top = tmp_path / "fleet"
    paths = set()
    for layout in (LAYOUTS[name] for name in names):
        (top / layout.place).mkdir(parents=True, exist_ok=True)
        (top / layout.place / ".sops.yaml").write_bytes(layout.text.encode())
        for path in (os.path.normpath(f"{layout.place or '.'}/{each}") for each in layout.paths):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text("key: value\n" if path.endswith(("yaml", "yml")) else '{"key": "value"}\n')
            paths.add(path)
    (top / "hosts.nix").write_text("{ }\n")
    git(top, "init", "-q")
    encrypted = set()
    for path in sorted(paths):
        done = sops((top / path).parent, "encrypt", "--in-place", Path(path).name, check=False)
        store = Secrets.load(top).store_of(path)
        assert store is not None
        has_rule = store.rules.rule_of(store.below(path)) is not None
        assert has_rule == (done.returncode == 0), done.stderr
        encrypted |= {path} if has_rule else set()
    assert encrypted
    secrets = Secrets.load(top)
    assert encrypted <= set(secrets.files)
    assert secrets.plan(load_fleet(top)).rekeys == ()
