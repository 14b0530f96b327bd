"""Each layout as a small fleet: what real sops says of it, and what each key opens when a host comes, changes and goes.

Expected is what the library says of a layout, never what is read here. Where a rule takes several key groups, nobody
opens its files alone: the host is tried together with the operator.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.changeset import changing
from nixherd.fleet.load import load_fleet
from nixherd.nix.declared import Declared, DeclaredSecret, Identity
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.joining import Admission
from nixherd.trust.leaving import leave
from nixherd.trust.recipients import trusted
from nixherd.trust.secrets import rules_edit
from nixherd.trust.secrets.files import Format
from nixherd.trust.secrets.keys import Kind, Recipient
from nixherd.trust.secrets.sops import as_host, operator
from nixherd.trust.secrets.store import Secrets
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import gpg_home, install_plugin, token
from tests.nixherd.trust.secrets.layouts.ground import OPERATOR, Ground, People, made
from tests.nixherd.trust.secrets.layouts.layout import KEYS, NEW, written
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys
from tests.properties import PROFILE
from tests.shared import Shared

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("layouts")]

AGAIN = "mail again"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    directory = tmp_path_factory.mktemp("people")
    (directory / "home").mkdir()
    install_plugin(directory / "bin")
    with gpg_home("carol") as (home, fingerprints):
        yield People(directory, home, {"carol": fingerprints["carol"], "yubikey": token("yubikey").recipient})


# What it is, and how it changes


def up_to_date(ground: Ground) -> set[str]:
    """The files that real `sops updatekeys` says are so; for the others it asks, and is answered no."""
    done = ground.sops("updatekeys", *ground.files, input="n\n" * len(ground.files), timeout=60)
    said = dict(re.findall(r"File (\S+) (already up to date|left unchanged)", done.stderr))
    assert {*said} == {str(ground.root / path) for path in ground.files}, done
    return {path for path in ground.files if said[str(ground.root / path)] == "already up to date"}


def same(ground: Ground) -> set[str]:
    """The files that a plan leaves as they are."""
    plan = Secrets.load(ground.root).plan(load_fleet(ground.root))
    assert plan.unknown == {}
    return {*ground.files} - {rekey.path for rekey in plan.rekeys}


def carry_out(
    ground: Ground,
    change: Callable[[Wanted], Wanted],
    private: str,
    *,
    host: str = NEW,
    edit_generated: bool,
    who: tuple[str, ...] = (),
) -> Wanted:
    """As the command line does, while the new host's private key is here."""
    shared = Shared(load_fleet(ground.root), Path("/nonexistent"))
    try:
        shared.run.state_of(host).note("ssh_host_ed25519_key", private)
        with changing(ground.root) as changes:
            secrets = Secrets.load(ground.root, edit_generated=edit_generated)
            result = change(Wanted(load_fleet(ground.root), secrets))
            publish(
                changes,
                result,
                "changed",
                sops=lambda: operator(shared.run, ground.people.identities(*(who or ground.operator))),
                as_host=as_host(shared.run, shared.keys, host),
                say=lambda line: None,
            )
            return result
    finally:
        shared.run.close()


def enrolled(ground: Ground, name: str, host: str = NEW, *, edit_generated: bool = True) -> Wanted:
    """With the key of this name, and one declared file of each rule that it is to join, or is in."""
    paths = ground.joined if host == NEW else ground.expected(host)
    by_rule = {ground.files[path].path_regex: path for path in sorted(paths, reverse=True)}
    declared = tuple(
        DeclaredSecret(f"s{at}", f"/run/secrets/s{at}", path, str(Format.of(path)), "a")
        for at, path in enumerate(by_rule.values())
    )
    identity = Identity(None, age_ssh_keys=("/etc/ssh/ssh_host_ed25519_key",))
    admission = Admission(Declared(host, declared, identities=(identity,)))

    def change(files: Wanted) -> Wanted:
        return trusted(files, files.fleet.hosts[host], key(name).public, admission)

    return carry_out(ground, change, key(name).private_openssh, host=host, edit_generated=edit_generated)


def removed(ground: Ground, host: str = NEW, who: tuple[str, ...] = ()) -> None:
    def change(files: Wanted) -> Wanted:
        return leave(files, [host], remove=False).change

    carry_out(ground, change, key(AGAIN).private_openssh, edit_generated=True, who=who)


def refused(ground: Ground, words: str, act: Callable[[], object]) -> None:
    before = contents(ground.root), git(ground.root, "rev-parse", "HEAD"), git(ground.root, "status", "--porcelain")
    with pytest.raises(FleetError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
    after = contents(ground.root), git(ground.root, "rev-parse", "HEAD"), git(ground.root, "status", "--porcelain")
    assert after == before


def bytes_of(ground: Ground) -> dict[str, bytes]:
    return {path: (ground.root / path).read_bytes() for path in ground.files}


@pytest.fixture
def ground(request: pytest.FixtureRequest, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    nobodys(monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", f"{people.directory / 'bin'}:{environment()['PATH']}")
    monkeypatch.setenv("GNUPGHOME", str(people.gnupg))
    return made(request.param, people, tmp_path / "fleet")


def some(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ground", [LAYOUTS[name] for name in names], ids=names, indirect=True)


FEW = (
    *("plain", "nested", "threshold", "merge-groups", "merge-keys", "shared-hosts", "comma", "crlf", "generated"),
    *("pgp-beside-age", "plugins-and-ssh", "no-pattern", "cloud"),
)
CHOSEN = tuple(LAYOUTS) if PROFILE == "ci" else FEW
REFUSED = [name for name, layout in LAYOUTS.items() if layout.added is None]
EDITED = [name for name in CHOSEN if name not in (*REFUSED, "cloud")]
LEFT = [name for name in CHOSEN if name != "cloud" and "web" in LAYOUTS[name].hosts]


@some(*CHOSEN)
def test_the_same_files_differ_as_for_sops(ground: Ground) -> None:
    assert same(ground) == up_to_date(ground) == {*ground.files}
    gone = "web" if "web" in ground.layout.hosts else "alice"
    key_gone = Recipient(Kind.AGE, KEYS[gone])
    text = rules_edit.remove(ground.text, key_gone) if gone == "web" else ground.text.replace(KEYS[gone], KEYS["old"])
    ground.config.write_bytes(text.encode())
    affected = {path for path, rule in ground.files.items() if gone in " ".join(rule.groups).split()}
    assert affected
    assert same(ground) == up_to_date(ground) == {*ground.files} - affected


@some(*EDITED)
def test_a_host_comes_changes_its_key_and_goes(ground: Ground) -> None:
    before, others = bytes_of(ground), [*ground.layout.hosts.values()]
    if ground.layout.is_generated:
        refused(ground, r"^\.sops\.yaml: is generated", partial(enrolled, ground, NEW, edit_generated=False))
    notes = enrolled(ground, NEW).notes
    assert same(ground) == up_to_date(ground) == {*ground.files}
    assert {path for path, content in bytes_of(ground).items() if content != before[path]} == ground.joined
    for who in ((NEW,), ground.operator, *((host,) for host in others)):
        ground.is_as_expected(*who, new=NEW)
    closed = ground.joined - ground.expected(NEW, new=NEW)
    assert ground.is_together == bool(closed)
    if ground.is_together:
        ground.is_as_expected(NEW, "alice", new=NEW)
    assert len([note for note in notes if f"and {NEW} is in fewer: its key alone opens none" in note]) == len(closed)

    enrolled(ground, AGAIN)
    assert {path for path, content in bytes_of(ground).items() if content != before[path]} == ground.joined
    for name in (NEW, AGAIN):
        ground.is_as_expected(name, *(["alice"] if ground.is_together else []), new=AGAIN)

    removed(ground)
    assert ground.config.read_bytes() == ground.text.encode()
    assert {path for path, content in bytes_of(ground).items() if content != before[path]} == ground.joined
    assert same(ground) == {*ground.files}
    gone = (NEW, AGAIN, *(["alice"] if ground.is_together else []))
    for who in (gone, ground.operator, *((host,) for host in others)):
        ground.is_as_expected(*who)
    assert git(ground.root, "status", "--porcelain") == ""


@some(*LEFT)
def test_a_host_that_was_there_goes(ground: Ground) -> None:
    before = bytes_of(ground)
    removed(ground, "web")
    affected = {path for path, rule in ground.files.items() if "web" in " ".join(rule.groups).split()}
    assert {path for path, content in bytes_of(ground).items() if content != before[path]} == affected
    assert same(ground) == up_to_date(ground) == {*ground.files}
    others = (host for host in ground.layout.hosts.values() if host != "web")
    for who in (("web",), ground.operator, *((host,) for host in others)):
        ground.is_as_expected(*who, gone="web")


@some("plugins-and-ssh", "nested")
def test_a_host_that_was_there_has_another_key(ground: Ground) -> None:
    """One of them is a recipient by its SSH key as it is."""
    host = ground.layout.hosts[[*ground.layout.hosts][-1]]
    meant = ground.expected(host)
    enrolled(ground, AGAIN, host)
    assert (ground.opens(host), ground.opens(AGAIN)) == (set(), meant)
    for who in (OPERATOR, *((other,) for other in ground.layout.hosts.values() if other != host)):
        ground.is_as_expected(*who)
    assert same(ground) == up_to_date(ground) == {*ground.files}


@some("threshold")
def test_whoever_would_lock_themselves_out_of_two_groups_is_refused(ground: Ground) -> None:
    who = ("alice", "web")
    refused(ground, r"^vault/a\.yaml: you could no longer decrypt", lambda: removed(ground, "web", who))
    ground.is_as_expected(*who)


@some(*REFUSED)
def test_what_cannot_be_edited_is_refused(ground: Ground) -> None:
    refused(ground, written(ground.layout.refusal), partial(enrolled, ground, NEW))
    ground.is_as_expected(*ground.operator)


@some("cloud")
def test_what_a_cloud_alone_encrypts_again_is_refused_without_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    for name, value in {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), nowhere),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "VAULT_MAX_RETRIES": "0",
        "VAULT_TOKEN": "x",
    }.items():
        monkeypatch.setenv(name, value)
    refused(ground, "^common\\.yaml: ", partial(enrolled, ground, NEW))
    for who in (OPERATOR, ("web",), (NEW,)):
        ground.is_as_expected(*who)


def test_a_store_of_files_is_changed_alone(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a `.sops.yaml` above it, whose rules would have other files of the same names."""
    nobodys(monkeypatch, tmp_path)
    ground = made(LAYOUTS["nested"], people, tmp_path / "fleet", LAYOUTS["headings"])
    above = (ground.root / ".sops.yaml").read_bytes()
    assert same(ground) == up_to_date(ground) == {*ground.files}
    enrolled(ground, NEW)
    for name in (NEW, "alice", "web"):
        ground.is_as_expected(name, new=NEW)
    removed(ground)
    assert (ground.root / ".sops.yaml").read_bytes() == above
    assert ground.config.read_bytes() == ground.text.encode()
    for name in (NEW, "alice", "web"):
        ground.is_as_expected(name)
