"""deploy-rs's nodes and colmena's deployments, as Nix gives them, in our words or a line."""

from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.from_flake import listed
from nixherd.fleet.models import Fleet, Host
from nixherd.fleet.outputs import Node, Outputs
from nixherd.fleet.shapes import Told, told
from tests.nixherd.fleet.test_completing import NOTHING, read
from tests.nixherd.fleet.test_from_flake import KEY, findings, fleet

IN_HIVE = "colmenaHive.nodes.web.config.deployment"
IN_CLAN = "clan.inventory.machines.web.deploy"


def node(hostname: Any = None, *levels: dict[str, Any]) -> Any:
    return {"deploy-rs": {"hostname": hostname, "settings": list(levels)}}


def hive(**deployment: Any) -> Any:
    return {
        "colmena": {"place": "colmenaHive.nodes", "keys": [], "targetHost": "web", "targetUser": "root", **deployment}
    }


def clan(*, tags: Any = (), **told: Any) -> Any:
    usual = {"secrets": [], "generates": [], "requireExplicitUpdate": False, "tags": list(tags)}
    of = {key: {"inInventory": True, "value": told.get(key)} for key in ("targetHost", "buildHost", "forwardAgent")}
    return {"clan": {**usual, **of}}


def test_a_clans_machine_in_our_words() -> None:
    """Without a word the machine builds for itself, as root."""
    assert told(clan(targetHost="web.lan"), "web") == Told(
        {"addresses": ["web.lan"], "user": "root", "build_on": "target"}
    )
    older = clan(targetHost="al@web.lan:2222&ProxyJump=gate", buildHost="localhost", tags=["all", "x"])
    assert told(older, "web") == Told(
        {"addresses": ["web.lan"], "user": "al", "port": 2222, "jump": ["gate"], "tags": ["x"]}
    )
    assert told(clan(), "web") == Told({"build_on": "target"})


def test_a_node_in_our_words() -> None:
    levels = (
        {"sshUser": "al", "sshOpts": ["-p", "23"]},
        {"sshUser": "bob", "remoteBuild": True, "sshOpts": ["-p", "24"], "user": None},
        {"fastConnection": True, "remoteBuild": False, "user": "root", "profilePath": "/nix/var/nix/profiles/system"},
    )
    assert told(node("10.0.0.5", *levels), "web") == Told(
        {
            "addresses": ["10.0.0.5"],
            "user": "al",
            "build_on": "target",
            "substitute_on_destination": False,
            "port": 23,
        },
    )
    assert told(node("h", {"sshOpts": ["-J", "al@gate:23, b"]}), "web").entry["jump"] == ["al@gate:23", "b"]
    assert told(node("h", {"sudo": "doas -u"}), "web").entry["become"] == "doas"
    assert told(node(), "web") == told(None, "web") == Told()


@pytest.mark.parametrize(
    ("target", "entry"),
    [
        ("web.example.org", {"addresses": ["web.example.org"], "user": "root"}),
        ("al@10.0.0.5:2222", {"addresses": ["10.0.0.5"], "user": "al", "port": 2222}),
        ("root@[fe80::1]:22", {"addresses": ["fe80::1"], "user": "root", "port": 22}),
        ("fe80::1", {"addresses": ["fe80::1"], "user": "root"}),
        ("root@h?IdentityFile=/x&StrictHostKeyChecking=no", {"addresses": ["h"], "user": "root"}),
    ],
)
def test_a_machine_of_clan_in_our_words(target: str, entry: dict[str, Any]) -> None:
    assert told(clan(targetHost=target), "web").entry == {**entry, "build_on": "target"}


def test_a_deployment_in_our_words() -> None:
    shape = hive(targetHost="10.0.0.5", targetPort=23, tags=["a"], buildOnTarget=True, sshOptions=["-p", "24"])
    assert told(shape, "web") == Told(
        {"addresses": ["10.0.0.5"], "user": "root", "port": 23, "tags": ["a"], "build_on": "target"}
    )
    assert told(hive(privilegeEscalationCommand=["doas"]), "web").entry["become"] == "doas"
    assert not told(hive(privilegeEscalationCommand=["doas"]), "web").unkept
    split = told(hive(targetHost="al@fe80::1", targetUser=None), "web").entry
    assert split == {"addresses": ["fe80::1"], "user": "al"}


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        (node("h", {"sshOpts": ["-F", "b", "-p", "22"]}), ["deploy.nodes.web.sshOpts: -F b: "]),
        (hive(sshOptions=["-oProxyCommand=x y"]), [f"{IN_HIVE}.sshOptions: -oProxyCommand"]),
        (
            hive(allowLocalDeployment=True, replaceUnknownProfiles=False, privilegeEscalationCommand=["run0"]),
            [
                f"{IN_HIVE}.allowLocalDeployment: ",
                f"{IN_HIVE}.privilegeEscalationCommand: ",
                f"{IN_HIVE}.replaceUnknownProfiles: ",
            ],
        ),
        (
            hive(
                allowLocalDeployment=False,
                replaceUnknownProfiles=True,
                privilegeEscalationCommand=["sudo", "-H", "--"],
            ),
            [],
        ),
        (
            clan(targetHost="root@h?IdentityFile=/x", buildHost="root@b"),
            [f"{IN_CLAN}.targetHost: -o IdentityFile=/x: ", f"{IN_CLAN}.buildHost: "],
        ),
    ],
)  # fmt: skip
def test_what_is_not_kept_is_named(shape: Any, attributes: list[str]) -> None:
    unkept = told(shape, "web").unkept
    assert [str(each).startswith(start) for each, start in zip(unkept, attributes, strict=True)] == [True] * len(unkept)
    assert {each.hosts for each in unkept} <= {("web",)}


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        (node(5), "deploy.nodes.web.hostname: is an integer, not a string; write a list of names or addresses"),
        (node("-oX"), "deploy.nodes.web.hostname: '-oX' is "),
        (node("10.0.0.5:22"), "deploy.nodes.web.hostname: "),
        (node("h", {"sshUser": "-x"}), "deploy.nodes.web.sshUser: '-x' is not a user name; write a login name"),
        (node("h", {"user": "al"}), "deploy.nodes.web.profiles.system.user: is 'al', and a system is "),
        (node("h", {"profilePath": "/x"}), "deploy.nodes.web.profiles.system.profilePath: is '/x', and "),
        (node("h", {"remoteBuild": "yes"}), "deploy.nodes.web.remoteBuild: is a string, not a boolean; "),
        (node("h", {"sshOpts": "-p 22"}), "deploy.nodes.web.sshOpts: is a string; write a list of strings"),
        (node("h", {"sshOpts": ["-p", 22]}), "deploy.nodes.web.sshOpts: has an integer in it; write a list of strings"),
        (node("h", {"sshOpts": ["-p", "x"]}), "deploy.nodes.web.sshOpts: is a string, not an integer; write a port"),
        (node("h", {"sshOpts": ["-p", "70000"]}), "deploy.nodes.web.sshOpts: 70000 is not a port; "),
        (node("h", {"sshOpts": ["-J", "a,-x"]}), "deploy.nodes.web.sshOpts[1]: '-x' is not a host's id or [USER@]NAME"),
        (clan(targetHost=5), f"{IN_CLAN}.targetHost: is an integer, not a string; write it as"),
        (clan(targetHost="-oX"), f"{IN_CLAN}.targetHost: '-oX' is not a [USER@]NAME[:PORT]; "),
        (clan(targetHost="h:0"), f"{IN_CLAN}.targetHost: 'h:0' is not a [USER@]NAME[:PORT]; "),
        (clan(targetHost="a b@h"), f"{IN_CLAN}.targetHost: 'a b@h' is not a [USER@]NAME[:PORT]; write it as user@"),
        (clan(targetHost="h:70000"), f"{IN_CLAN}.targetHost: 'h:70000' is not a [USER@]NAME[:PORT]; "),
        (clan(buildHost=5), f"{IN_CLAN}.buildHost: is an integer, not a string; write it as"),
        (clan(tags=["-x y", 5]), "clan.inventory.machines.web.tags: is not a list of tags; "),
        (hive(keys=["a", "b"]), f"{IN_HIVE}.keys: colmena uploads a, b, and nixherd sends "),
        (hive(targetHost=5), f"{IN_HIVE}.targetHost: is an integer, not a string; "),
        (hive(targetHost="a b@h"), f"{IN_HIVE}.targetHost: 'a b' is not a user name; "),
        (hive(targetHost="h:22"), f"{IN_HIVE}.targetHost: "),
        (hive(targetUser=5), f"{IN_HIVE}.targetUser: is an integer, not a string; "),
        (hive(targetPort="22"), f"{IN_HIVE}.targetPort: is a string, not an integer; "),
        (hive(tags="a"), f"{IN_HIVE}.tags: is not a list of tags; "),
        (hive(buildOnTarget=1), f"{IN_HIVE}.buildOnTarget: is an integer, not a boolean; "),
    ],
)  # fmt: skip
def test_what_is_wrong_or_would_be_deployed_otherwise_is_one_line(shape: Any, line: str) -> None:
    with pytest.raises(FleetError) as caught:
        told(shape, "web")
    assert str(caught.value).startswith(f"flake.nix: {line}")
    assert "\n" not in str(caught.value)


def test_a_raw_hive_is_named_as_it_stands_there() -> None:
    with pytest.raises(FleetError, match=r"^flake.nix: colmena.web.deployment.targetPort: 0 is less than 1; "):
        told(hive(place="colmena", targetPort=0), "web")


@pytest.mark.parametrize("shape", [5, {"x": {}}, {"a": 1, "b": 2}, {"deploy-rs": {}}, {"colmena": []}, {"clan": 5}])
def test_anything_else_is_an_error(shape: Any) -> None:
    with pytest.raises(FleetError, match="something unexpected"):
        told(shape, "web")


NODES = Outputs(
    ("db", "web"),
    hive=("hived", "web"),
    nodes={
        "db": Node(("autoRollback", "hostname", "profiles"), ("al", "system")),
        "hived": Node(("autoRollback",), ("system",)),
        "x\ny": Node(),
    },
    node_settings=("magicRollback", "nodes", "sshUser"),
    unread={"colmena": "why"},
)


def test_where_each_host_is() -> None:
    hosts = listed(NODES)
    assert {name: (each.output, str(each)) for name, each in hosts.configurations.items()} == {
        "db": ("deploy.nodes", "nixosConfigurations.db"),
        "web": ("colmenaHive.nodes", "colmenaHive.nodes.web"),
        "hived": ("colmenaHive.nodes", "colmenaHive.nodes.hived"),
    }
    assert hosts.skipped["colmena"] == "why"
    assert hosts.skipped["deploy.nodes.'x\\ny'"].startswith("the flake has no nixosConfigurations of its name")
    assert len(hosts.skipped) == 2
    assert findings(NODES) == []


def test_what_names_alone_tell_is_not_kept() -> None:
    names = [(each.attribute, each.hosts) for each in listed(NODES).unkept]
    assert names == [
        ("deploy.magicRollback", ("db", "hived", "x\ny")),
        ("deploy.nodes.{db,hived}.autoRollback", ("db", "hived")),
        ("deploy.nodes.db.profiles.al", ("db",)),
    ]


def read_web(shape: Any, beside: Any = None, **details: Any) -> tuple[Fleet, Host]:
    made = read(fleet(Outputs(("db", "web"), hosts={}), beside), "web", web={**NOTHING, "shape": shape, **details})
    return made, made.hosts["web"]


def test_our_options_go_first_and_what_a_configuration_says_of_itself_last() -> None:
    options = {"publicKey": KEY, "user": "eve"}
    _, web = read_web(node("10.0.0.5", {"sshUser": "al"}), options=options, ports=[2222], logins=["root"])
    assert (web.user, web.addresses, web.port, web.public_key) == ("eve", ("10.0.0.5",), 2222, KEY)
    _, web = read_web(node("10.0.0.5", {"sshUser": "al", "sshOpts": ["-p", "23"]}), ports=[2222], logins=["root"])
    assert (web.user, web.port, web.unread) == ("al", 23, None)
    _, web = read_web(hive(targetHost="10.0.0.5"), {"hosts": {"web": {"addresses": ["10.0.0.6"]}}})
    assert web.addresses == ("10.0.0.5",)  # of a fleet without entries


def test_one_that_colmena_reaches_from_nowhere_needs_an_address() -> None:
    _, web = read_web(hive(targetHost=None))
    assert web.unread == (
        f"flake.nix: {IN_HIVE}.targetHost: is null, so that colmena reaches it from "
        "nowhere else; say its address in hosts.nix"
    )
    _, web = read_web(hive(targetHost=None), options={"address": "10.0.0.5"})
    assert (web.unread, web.addresses) == (None, ("10.0.0.5",))


def test_what_is_not_kept_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = read_web(node("h", {"sshOpts": ["-F", "b"]}))
    assert [each.hosts for each in made.unkept] == [("web",)]
    assert capsys.readouterr().err.startswith("not kept: deploy.nodes.web.sshOpts: -F b: the way to a machine, and ")
