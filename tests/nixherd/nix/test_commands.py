import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.nix import commands as nix
from nixherd.nix.declared import Declared
from nixherd.ssh.destination import Destination
from tests import nix_cli

TOPLEVEL = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos-system-dev-25.11"
SCRIPT = "/nix/store/1v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-disko"


def described(**changes: object) -> str:
    about: dict[str, object] = {
        "toplevel": TOPLEVEL,
        "toplevelDrv": f"{TOPLEVEL}.drv",
        "diskoScript": SCRIPT,
        "diskoDrv": f"{SCRIPT}.drv",
        "hostname": "dev",
        "revision": None,
        "devices": ["/dev/sda"],
        "bootLoader": "grub",
        "grubEfi": False,
        "guestAgent": True,
        "ssh": None,
        "rootAccess": False,
        "health": {},
        "declared": {"sops": [], "others": []},
        "system": "aarch64-linux",
        "details": None,
    }
    return json.dumps({"dev": about | changes, "nosuch": None})


def test_description_becomes_values() -> None:
    found = nix.parse_description(described())
    assert found["nosuch"] is None
    dev = found["dev"]
    assert dev is not None
    assert (dev.toplevel, dev.configuration_revision, dev.devices) == (TOPLEVEL, None, ("/dev/sda",))
    assert dev.derivations == [f"{TOPLEVEL}.drv", f"{SCRIPT}.drv"]
    assert (dev.guest_agent, dev.ssh, dev.root_access) == (True, None, False)
    assert dev.system == "aarch64-linux"
    assert dev.declared == Declared("dev")


def test_a_host_without_disko_builds_its_system_only() -> None:
    dev = nix.parse_description(described(diskoScript=None, diskoDrv=None))["dev"]
    assert dev is not None
    assert dev.derivations == [f"{TOPLEVEL}.drv"]


@pytest.mark.nix
def test_a_specialisation_is_asked_for_its_own_health_checks() -> None:
    describe = Path(nix.__file__).with_name("describe.nix")
    health = '{ nixherd.healthChecks.web.unit = "a.service"; }'
    travel, broken = "travel.configuration.nixherd.healthChecks.vpn.tcp = 1;", 'broken.configuration = throw "x";'
    special = f"{{ {travel} {broken} bare.configuration = {{ }}; }}"
    others = 'mark = ""; rootAccess = _: null; declared.host = _: null; details.host = _: { };'
    text = nix_cli.nix(
        *("eval", "--json", "--impure", "--expr"),
        f"""let
          describe = import {describe} {{ {others} }};
          found = (describe.hosts ["dev"] {{
            dev = {{ pkgs = {{ }}; config = {health} // {{ specialisation = {special}; }}; }};
          }}).dev;
        in {{ inherit (found) health healthOf; }}""",
    )
    assert json.loads(text) == {
        "health": {"web": {"unit": "a.service"}},
        "healthOf": {"travel": {"vpn": {"tcp": 1}}, "broken": None, "bare": {}},
    }
    dev = nix.parse_description(described(healthOf={"travel": {"vpn": {"tcp": 1}}}))["dev"]
    assert dev is not None
    assert dev.health_of == {"travel": {"vpn": {"tcp": 1}}}


@pytest.mark.parametrize("path", ["/nix/store/../../etc/passwd", "/etc/shadow", TOPLEVEL + "; reboot", "", None, 3])
def test_what_is_no_store_path_never_reaches_a_shell(path: object) -> None:
    with pytest.raises(FleetError, match="unexpected"):
        nix.parse_description(described(toplevel=path))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"dev": {}}', '{"dev": 3}'])
def test_other_output_is_one_clear_error(text: str) -> None:
    with pytest.raises(FleetError, match="nix eval printed something unexpected"):
        nix.parse_description(text)


def test_one_evaluation_for_all_hosts() -> None:
    argv = nix.describe("/fleet", ["dev", "igpu"])
    assert argv.count("eval") == 1
    assert "/fleet#nixosConfigurations" in argv
    assert '\\"dev\\", \\"igpu\\"' in argv[-1]


@given(st.text())
def test_a_nix_string_has_nothing_to_interpolate(text: str) -> None:
    quoted = nix.nix_string(text)
    inside = quoted[1:-1].replace("\\\\", "").replace('\\"', "").replace("\\${", "")
    assert quoted[0] == quoted[-1] == '"'
    assert '"' not in inside
    assert "${" not in inside


def test_copy_goes_over_the_pinned_connection_into_the_new_root() -> None:
    to = Destination("10.0.0.7", "root", Path("/state/known hosts"), identity=Path("/home/me/.ssh/id"))
    argv, environment = nix.copy([TOPLEVEL], to, root="/mnt")
    assert argv[-2:] == ["ssh://root@10.0.0.7?remote-store=local%3Froot=%2Fmnt", TOPLEVEL]
    assert "StrictHostKeyChecking=yes" in environment["NIX_SSHOPTS"]
    assert "known hosts" in environment["NIX_SSHOPTS"]


def test_an_ipv6_address_is_bracketed_where_it_is_part_of_a_url() -> None:
    to = Destination("2001:db8::7", "root", Path("/known"))
    assert to.argv("true")[-2:] == ["root@2001:db8::7", "true"]
    argv, _ = nix.copy([TOPLEVEL], to)
    assert argv[-2:] == ["ssh://root@[2001:db8::7]", TOPLEVEL]
