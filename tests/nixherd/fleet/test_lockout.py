"""Who is locked out, with file, host and remedy."""

from dataclasses import replace

from nixherd.base.errors import FleetError
from nixherd.fleet import lockout
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.runs import DESCRIBED


def test_a_host_with_no_way_to_root_is_named_with_its_file() -> None:
    at = replace(HOST, configuration_file=f"{FLEET.path}/hosts/dev/configuration.nix")
    fleet = replace(FLEET, hosts={name: replace(at, id=name) for name in ("dev", "web", "db", "gone", "odd")})
    found = {
        "dev": replace(DESCRIBED, root_access=False),
        "web": replace(DESCRIBED, root_access=True),
        "db": DESCRIBED,  # nobody can tell
        "gone": None,
        "odd": FleetError("it does not evaluate"),
    }
    [finding] = lockout.findings(fleet, found)
    assert finding.startswith("hosts/dev/configuration.nix: dev: no way to root on a machine that was just installed")
    assert (finding.attribute, finding.is_warning) == ("dev", False)
    assert "users.users.root.openssh.authorizedKeys.keys" in finding.remedy
