import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.fleet.groups import check_selection, groups_of, separate
from nixherd.fleet.models import Fleet, GuestType, Host, Origin, Vm
from nixherd.fleet.validate import GROUPS


def _host(
    name: str, *, nixos: bool = True, hostname: str | None = None, alias: str | None = None, tags: tuple[str, ...] = ()
) -> Host:
    return Host(
        id=name,
        hostname=hostname or name,
        ssh_alias=alias,
        user="u",
        home_directory=None,
        public_key=None,
        authorized_keys=(),
        configuration_file="/c.nix" if nixos else None,
        home_file="/h.nix",
        tags=tags,
    )


def _vm(host_id: str | None, vmid: int, origin: Origin = Origin.MANAGED, *, readonly: bool = False,
        type: GuestType = GuestType.QEMU, tags: tuple[str, ...] = ()) -> Vm:  # fmt: skip
    return Vm(f"vm{vmid}", vmid, origin, readonly, type=type, host_id=host_id, tags=tags)


def _groups(hosts: list[Host], vms: list[Vm]) -> dict[str, list[str]]:
    return groups_of(Fleet("/f", "fleet", {host.id: host for host in hosts}, {vm.name: vm for vm in vms}))


def test_kinds() -> None:
    hosts = [_host("dev"), _host("igpu", alias="igp"), _host("caddy", nixos=False), _host("ct")]
    vms = [
        _vm("dev", 110, readonly=True),
        _vm("igpu", 109, Origin.IMPORTED, readonly=True),
        _vm("ct", 210, type=GuestType.LXC),
        _vm(None, 150, Origin.IMPORTED, readonly=True),
    ]
    groups = _groups(hosts, vms)
    assert groups == {
        "all": ["dev", "igpu", "caddy", "ct"],
        "nixos": ["dev", "igpu", "ct"],
        "home_manager": ["caddy"],
        "managed": ["dev", "ct"],
        "imported": ["igpu"],
        "readonly": ["dev", "igpu"],
        "lxc": ["ct"],
        "dev": ["dev"],
        "igpu": ["igpu"],
        "igp": ["igpu"],
        "caddy": ["caddy"],
        "ct": ["ct"],
    }


def test_one_readonly_guest_makes_its_host_readonly() -> None:
    vms = [_vm("a", 101, Origin.IMPORTED, readonly=False), _vm("a", 102, Origin.IMPORTED, readonly=True)]
    assert _groups([_host("a")], vms)["readonly"] == ["a"]


def test_tags_of_definitions() -> None:
    hosts = [_host("a", tags=("rack-1",)), _host("b"), _host("c")]
    groups = _groups(hosts, [_vm("a", 101, tags=("web", "prod", "web")), _vm("b", 102, tags=("web",))])
    assert (groups["web"], groups["prod"], groups["rack-1"]) == (["a", "b"], ["a"], ["a"])


@pytest.mark.parametrize("tag", ["nixos", "readonly", "all", "inventory", "c", "c-alias", "c-real", "_hidden", "self"])
def test_a_tag_that_means_something_else_makes_no_group(tag: str) -> None:
    hosts = [_host("a", nixos=False), _host("c", nixos=False, hostname="c-real", alias="c-alias")]
    assert "a" not in [id for name, ids in _groups(hosts, [_vm("a", 101, tags=(tag,))]).items()
                       if name == tag and name != "all" for id in ids]  # fmt: skip


def test_a_hostname_that_is_a_kind_makes_no_group() -> None:
    groups = _groups([_host("wsl", hostname="nixos", alias="w"), _host("a")], [])
    assert groups["nixos"] == ["wsl", "a"]
    assert groups["w"] == ["wsl"]


@given(st.lists(st.text("abcdef_-", min_size=1, max_size=4), min_size=1, max_size=6, unique=True), st.data())
def test_every_name_selects_its_host_alone(ids: list[str], data: st.DataObject) -> None:
    words = st.text("abcdef_-", min_size=1, max_size=4)
    hosts = [_host(name, hostname=f"{name}.lan") for name in ids]
    vms = [_vm(name, 100 + n, tags=tuple(data.draw(st.lists(words)))) for n, name in enumerate(ids)]
    groups = _groups(hosts, vms)
    for host in hosts:
        assert check_selection([host.id], groups, "--limit") == {host.id}
        if not host.hostname.startswith("_"):
            assert check_selection([host.hostname], groups, "--limit") == {host.id}


SMALL = {"all": ["dev", "dev2", "igpu"], "nixos": ["dev", "dev2"], "igp": ["igpu"]}


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [(["dev"], {"dev"}), (["nixos"], {"dev", "dev2"}), (["dev*"], {"dev", "dev2"}), (["igp", "dev"], {"igpu", "dev"})],
)
def test_selection(patterns: list[str], selected: set[str]) -> None:
    assert check_selection(patterns, SMALL, "--limit") == selected


def test_a_comma_separates_where_no_group_is_called_so() -> None:
    assert separate(["dev,igp", "z", ",dev2,"], SMALL) == ["dev", "igp", "z", "dev2"]
    assert separate(["a,b", "dev"], {**SMALL, "a,b": ["dev"]}) == ["a,b", "dev"]
    assert separate([], SMALL) == []
    assert separate([",", ""], SMALL) == [",", ""]  # which select nothing, and not everything


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("dve", "--limit dve: no host or group has this name; the nearest are dev"),
        ("xyz", "--limit xyz: no host or group has this name; there are all, dev, dev2, igp, igpu, nixos"),
        ("dev,igp", "--limit dev,igp: no host or group has this name; repeat --limit for each of several"),
        ("readonly", "--limit readonly: no host of the fleet is in this group; nothing was done"),
        ("z*", "--limit z*: no host or group has this name; there are all, dev, dev2, igp, igpu, nixos"),
    ],
)
def test_a_selection_of_nothing(pattern: str, message: str) -> None:
    with pytest.raises(FleetError) as caught:
        check_selection(["dev", pattern], SMALL, "--limit")
    assert str(caught.value) == message


def test_a_fleet_without_a_host_says_so() -> None:
    for pattern in ("*", "web"):
        with pytest.raises(FleetError, match=r"--limit .*: the fleet has no host; `nixherd new NAME` adds one$"):
            check_selection([pattern], {"all": []}, "--limit")


def test_the_kinds_are_reserved() -> None:
    """Whatever groups_of calls a kind, validation keeps hosts from being called."""
    hosts = [_host("a"), _host("b", nixos=False), _host("c")]
    vms = [_vm("a", 101, readonly=True), _vm("b", 102, Origin.IMPORTED), _vm("c", 201, type=GuestType.LXC)]
    assert set(_groups(hosts, vms)) - {"a", "b", "c"} <= set(GROUPS)
