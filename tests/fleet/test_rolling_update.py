"""The program of the rolling update, with real git, real Nix and a fleet of raw derivations that follows one input."""

from pathlib import Path

import pytest

from tests.fleet.rolling import HOSTS, Forge

pytestmark = pytest.mark.nix


def test_an_update_is_built_put_into_the_cache_pushed_and_published_once(forge: Forge) -> None:
    first = forge.tip
    status, output = forge.run()
    assert status == 0, output
    assert forge.sh(f"git --git-dir=origin.git diff --name-only {first} main") == "flake.lock"
    assert forge.told() == {"web01": ("1", forge.tip), "db01": ("1", forge.tip)}
    for system in (forge.state / "cache").glob("*.narinfo"):
        assert "\nSig: t-1:" in system.read_text()
    assert len(list((forge.state / "work/builds" / forge.tip).iterdir())) == 3  # two machines and a home

    tip, files = forge.tip, sorted((forge.state / "cache").rglob("*"))
    assert forge.run() == (0, f"nothing new: {tip}\n")
    assert (forge.tip, sorted((forge.state / "cache").rglob("*"))) == (tip, files)

    old, by_hand = forge.pointer("web01"), forge.pointer("db01")
    forge.sh(f"cp {forge.state}/cache/systems/db01 {forge.state}/cache/systems/other")
    forge.sh(f"find {forge.state}/cache -type f -exec touch -d '2 days ago' {{}} +")
    forge.upstream("2")
    assert forge.run("main")[0] == 0
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}
    assert forge.tip != tip
    message = forge.sh("git --git-dir=origin.git log -1 --format=%B main")
    assert message.startswith("flake.lock: update\n\n• Updated input 'upstream'")
    new = forge.pointer("web01")
    assert old
    assert by_hand
    assert new
    assert old.serial < new.serial
    # what nothing needs any more is gone, what is needed is there
    nothing = f"! nix path-info --store file://{forge.state}/cache {old.system} 2>/dev/null"
    forge.sh(f"nix path-info --store file://{forge.state}/cache {by_hand.system}")
    forge.sh(f"{nothing}; test $(ls {forge.state}/cache/nar | wc -l) = $(ls {forge.state}/cache/*.narinfo | wc -l)")


def test_a_revision_that_is_bad_stops_at_the_gate(forge: Forge) -> None:
    forge.run()
    told = forge.told()
    bad = forge.commit("hosts.nix", '{ web = "web01"; "db.one" = throw "no such thing"; bad = "x y/z"; }')
    forge.upstream("2")
    status, output = forge.run()
    assert status == 1
    assert 'nixosConfigurations."db.one".config.system.build.toplevel cannot be built' in output
    assert "no such thing" in output
    assert 'nixosConfigurations."web".config' not in output
    assert "does not pass the gate either" in output
    assert (forge.tip, forge.told()) == (bad, told)

    forge.commit("hosts.nix", '{ web = "web01"; other = "web01"; }')
    status, output = forge.run()
    assert (status, "more than one machine has the hostname web01" in output) == (1, True)
    assert forge.told() == told

    forge.commit("hosts.nix", "{ }")
    status, output = forge.run()
    assert (status, "has no machines" in output) == (1, True)
    forge.commit("hosts.nix", HOSTS)
    assert forge.run()[0] == 0
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}


def test_what_people_have_committed_does_not_wait_for_an_input_that_breaks(forge: Forge) -> None:
    forge.run()
    tip = forge.commit("readme", "words")
    forge.upstream("2", "echo upstream is broken >&2; exit 1")
    status, output = forge.run()
    assert (status, "upstream is broken" in output, f"continuing with {tip} without it" in output) == (1, True, True)
    assert forge.tip == tip
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}
    status, output = forge.run()  # and then there is only the input
    assert (status, "machines keep what they have" in output) == (1, True)
    (forge.root / "upstream").rename(forge.root / "away")
    tip = forge.commit("readme", "more words")
    status, output = forge.run()
    assert (status, "the inputs cannot be updated" in output) == (1, True)
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}
    assert forge.run()[0] == 1


def pushed_meanwhile(forge: Forge, name: str, text: str) -> None:
    """Between the build and our push somebody else pushes."""
    (forge.root / "theirs").write_text(text)
    environ = " ".join(f"{key}=person" for key in forge.env if key.startswith(("GIT_AUTHOR", "GIT_COMMITTER")))
    forge.before(
        "git",
        " push ",
        f"(export {environ}; cd {forge.root}/person; git pull -q --rebase origin main; cp ../theirs {name}; git add -A;"
        " git commit -qm theirs; git push -q origin HEAD:main)",
    )


def test_on_a_race_it_is_rebased_and_verified_again(forge: Forge) -> None:
    forge.run()
    forge.upstream("2")
    pushed_meanwhile(forge, "hosts.nix", '{ web = "web01"; "db.one" = "db01"; new = "new01"; }')
    status, output = forge.run()
    assert (status, "trying again on top of it" in output) == (0, True), output
    subjects = forge.sh("git --git-dir=origin.git log -3 --format=%s main").splitlines()
    assert subjects == ["flake.lock: update", "theirs", "flake.lock: update"]
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}
    assert forge.pointer("new01")


def test_a_race_with_the_same_update_ends_with_theirs(forge: Forge) -> None:
    forge.run()
    forge.upstream("2")
    ours = forge.sh("git --git-dir=origin.git show main:flake.lock")
    forge.git("pull", "--quiet", "--rebase", "origin", "main")
    forge.sh("nix flake update --flake path:$PWD/person 2>/dev/null")
    theirs = (forge.root / "person/flake.lock").read_text()
    forge.git("checkout", "--quiet", "flake.lock")
    assert theirs.strip() != ours
    pushed_meanwhile(forge, "flake.lock", theirs)
    status, output = forge.run()
    assert status == 0, output
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "theirs"
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}


def test_what_was_built_for_a_race_that_is_lost_is_held(forge: Forge) -> None:
    forge.run()
    told = forge.told()
    forge.upstream("2")
    pushed_meanwhile(forge, "hosts.nix", '{ web = throw "theirs is bad"; "db.one" = "db01"; }')
    status, output = forge.run()
    assert (status, "theirs is bad" in output, forge.told()) == (1, True, told)
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "theirs"
    roots = forge.sh("nix-store --gc --print-roots")
    held = {line.split(" -> ")[1] for line in roots.splitlines() if line.startswith(f"{forge.state}/")}
    versions = [(Path(path) / "version").read_text() for path in held if "-system-web" in path]
    assert sorted(versions) == ["1\n", "2\n"]


def test_killed_between_push_and_publication_it_is_published_by_the_next_run(forge: Forge) -> None:
    forge.before("ssh-keygen", "-Y sign", "kill -KILL $PPID")
    assert forge.run()[0] == -9
    (forge.root / "runtime/key").unlink()  # as systemd does
    tip = forge.tip
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "flake.lock: update"
    assert not (forge.state / "cache/systems/db01").exists()
    status, output = forge.run()
    assert (status, forge.tip) == (0, tip), output
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}
