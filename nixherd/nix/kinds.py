"""Where a flake has its configurations, and as what they are asked: NixOS's and Home Manager's own, colmena's nodes,
systems of which deploy-rs has a node, and those of a clan. Pure.
"""

from enum import StrEnum
from pathlib import Path

_NODES, _HIVE, _RAW, _CLAN = (
    Path(__file__).with_name(f"{name}.nix").read_text(encoding="utf-8")
    for name in ("deploy_rs", "colmena", "raw_hive", "clan")
)


class Output(StrEnum):
    """Which of a flake's outputs a configuration is in; of NODE and CLAN the system is in SYSTEM, and more is said
    there.

    RAW has modules; the configurations are made of them.
    """

    SYSTEM = "nixosConfigurations"
    HOME = "homeConfigurations"
    HIVE = "colmenaHive.nodes"
    RAW = "colmena"
    NODE = "deploy.nodes"
    CLAN = "clan.inventory.machines"

    @property
    def place(self) -> str:
        """The attribute of the flake that has the configurations by name."""
        return Output.SYSTEM if self in (Output.NODE, Output.CLAN) else self

    @property
    def is_home(self) -> bool:
        return self is Output.HOME

    @property
    def is_hive(self) -> bool:
        return self in (Output.HIVE, Output.RAW)

    def installable(self, flake: str) -> str:
        """What Nix is to evaluate, `.` being all outputs."""
        return f"{flake}#{'.' if self in _OF_ALL else self}"

    def applied(self, function: str) -> str:
        """A function of configurations by name as one of what is evaluated."""
        return f"value: ({function}) (({_MADE[self]}) value)" if self in _MADE else function


_OF_ALL = (Output.NODE, Output.RAW, Output.CLAN)
_MADE = {
    Output.HIVE: f'({_HIVE}) "{Output.HIVE}"',
    Output.RAW: f'value: (({_HIVE}) "{Output.RAW}") (({_RAW}) value)',
    Output.NODE: _NODES,
    Output.CLAN: _CLAN,
}
WORDING = "".join(_MADE.values())
"""all that is asked in these words"""

_OTHER = {
    "none": "has no profiles.system, so that deploy-rs deploys no system there",
    "text": "profiles.system.path is not a derivation, so that what deploy-rs would deploy is not known",
    "other": "profiles.system.path is not made of {system}, which nixherd deploys",
}


def why_another(name: str, verdict: str, platform: str | None = None) -> str:
    """Say why what deploy-rs would deploy to this node is not the flake's system of its name (deploy_rs.nix).

    `platform` is what it runs on, as `aarch64-linux`.
    """
    system = f"{Output.SYSTEM}.{name}"
    what = _OTHER[verdict].format(system=system)
    line = f"path = deploy-rs.lib.{platform or 'SYSTEM'}.activate.nixos self.{system};"
    return f'{Output.NODE}.{name}: {what}; write there: profiles.system = {{ user = "root"; {line} }};'
