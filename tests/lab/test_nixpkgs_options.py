"""The stand-in takes the options of the real modules, with their types, refuses all others, and makes up no value."""

from pathlib import Path
from typing import Any

import pytest

from lab.options import SETS, former, options
from lab.options.names import parts
from lab.options.types import parse
from tests.nix_cli import nix_json, stand_ins, try_nix

pytestmark = pytest.mark.nix

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "nix"
PRELUDE = """
  let
    lib = import @lab@/nixpkgs/lib;
    nixos = modules: import @lab@/nixpkgs/nixos/lib/eval-config.nix {inherit lib modules; system = "x86_64-linux";};
    system = modules: (nixos modules).config;
    pkgs = import @lab@/nixpkgs {system = "x86_64-linux";};
    homeFrom = import @lab@/inputs/home-manager/eval.nix;
    home = modules: (homeFrom {inherit lib pkgs modules; extraSpecialArgs = {};}).config;
    disko = @lab@/inputs/disko/module.nix;
    sops = @lab@/inputs/sops-nix/module.nix;
    homes = @lab@/inputs/home-manager/nixos.nix;
  in
"""


def value(expression: str) -> Any:
    return nix_json("eval", "--impure", "--json", "--expr", PRELUDE.replace("@lab@", str(stand_ins())) + expression)


def error(expression: str) -> str:
    text = PRELUDE.replace("@lab@", str(stand_ins())) + expression
    done = try_nix("eval", "--impure", "--json", "--expr", text)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("evaluated", "messages"),
    [
        (
            '(system [{services.openssh.setings.PermitRootLogin = lib.mkForce "no";}]).services',
            ["The option `services.openssh.setings' does not exist. Definition values:", "{ PermitRootLogin = "],
        ),
        ("(system [{services.opensh.enable = true;}]).services", ["The option `services.opensh' does not exist."]),
        (
            "(system [{users.users.bob.isNormalUsr = true;}]).users.users.bob",
            ["`users.users.bob.isNormalUsr' does not exist"],
        ),
        (
            '(system [{services.caddy.virtualHosts.a.extraConfg = "";}]).services.caddy.virtualHosts.a',
            ["`services.caddy.virtualHosts.a.extraConfg' does not exist"],
        ),
        (
            '(system [{services.caddy.enable = "yes";}]).services.caddy.enable',
            ["A definition for option `services.caddy.enable' is not of type `boolean'. Definition values:", '"yes"'],
        ),
        (
            '(system [{services.restic.backups.a.paths = "/";}]).services.restic.backups.a.paths',
            ["`services.restic.backups.a.paths' is not of type `null or (list of string)'"],
        ),
        (
            "(system [{services.tailscale.openFirewal = true;}]).services",
            ["`services.tailscale.openFirewal' does not exist"],
        ),
        (
            '(system [{security.acme.defaults.credentialsFile = "/c";}]).security.acme.defaults',
            ["The option `security.acme.defaults.credentialsFile' does not exist."],
        ),
        # what a module brings that nobody imported
        ("(system [{sops.defaultSopsFile = ./x;}]).services", ["The option `sops' does not exist."]),
        ("(system [{wsl.enable = true;}]).services", ["The option `wsl' does not exist."]),
        (
            "(system [homes {home-manager.useGlobalPkg = true;}]).services",
            ["`home-manager.useGlobalPkg' does not exist"],
        ),
        ("(home [{programs.git.enabel = true;}]).programs", ["`programs.git.enabel' does not exist"]),
        ("(home [{services.openssh.enable = true;}]).programs", ["`services.openssh' does not exist"]),
        # a value that nobody knows here
        (
            "(system []).services.caddy.package",
            ["`services.caddy.package' was read, nothing sets it, and the lab's stand-in does not know its default"],
        ),
        ("(system []).services.caddy.enable or false", ["`services.caddy.enable' was read, nothing sets it"]),
        (
            "(system [{services.restic.backups.a = {};}]).services.restic.backups.a.user",
            ["`services.restic.backups.a.user' was read"],
        ),
    ],
)
def test_what_is_refused_and_how(evaluated: str, messages: list[str]) -> None:
    shown = error(evaluated)
    assert [words for words in messages if words not in shown] == [], shown


def test_what_the_real_modules_declare_is_taken_and_merged() -> None:
    """One evaluation of many: types, priorities, submodules, formats, `<name>`, and `mkIf` around all of it."""
    assert value(
        """
        let c = system [
          disko sops
          {
            services.caddy = {enable = true; virtualHosts."a.b".extraConfig = "one"; globalConfig = "x";};
            services.restic.backups.all = {paths = ["/a"]; exclude = ["b"]; timerConfig.OnCalendar = "daily";};
            services.grafana.settings.server.http_port = 3000;
            services.grafana.settings.made.up = "y";
            services.github-runners.a = {enable = true; url = "u"; tokenFile = "/t";};
            services.github-runners.a.extraLabels = lib.mkDefault ["no"];
            security.acme.certs."a.b".email = "e";
            environment.wordlist.enable = lib.mkDefault true;
            hardware.graphics.extraPackages32 = [];
          }
          ({config, lib, ...}: {
            config = lib.mkIf config.services.caddy.enable {
              services.caddy.virtualHosts."a.b".extraConfig = lib.mkBefore "zero";
              services.restic.backups.all.paths = lib.mkAfter ["/c"];
              services.github-runners.a.extraLabels = ["yes"];
              environment.wordlist.enable = false;
            };
          })
        ]; s = c.services; in {
          caddy = s.caddy.virtualHosts."a.b".extraConfig;
          paths = s.restic.backups.all.paths;
          timer = s.restic.backups.all.timerConfig;
          grafana = s.grafana.settings;
          labels = s.github-runners.a.extraLabels;
          email = c.security.acme.certs."a.b".email;
          words = c.environment.wordlist.enable;
          none = c.hardware.graphics.extraPackages32;
          mail = (home [{accounts.email.accounts.a.primary = true;}]).accounts.email.accounts.a.primary;
          prompt = (home [{programs.starship.settings.add_newline = false;}]).programs.starship.settings;
        }"""
    ) == {
        "caddy": "zero\none",
        "paths": ["/a", "/c"],
        "timer": {"OnCalendar": "daily"},
        "grafana": {"server": {"http_port": 3000}, "made": {"up": "y"}},
        "labels": ["yes"],
        "email": "e",
        "words": False,
        "none": [],
        "mail": True,
        "prompt": {"add_newline": False},
    }


def test_what_has_another_name_now_is_moved_with_a_warning_and_what_is_gone_fails() -> None:
    found = value(
        """
        let c = system [{
          services.logind.lidSwitch = "ignore";
          services.openssh.permitRootLogin = lib.mkForce "no";
          boot.cleanTmpDir = lib.mkIf false true;
          systemd.sleep.extraConfig = "x";
          system.stateVersion = "25.11";
        }]; in {
          inherit (c) warnings;
          failed = map (a: a.message) (lib.filter (a: !a.assertion) c.assertions);
          lid = c.services.logind.settings.Login.HandleLidSwitch;
          root = c.services.openssh.settings.PermitRootLogin;
        }"""
    )
    assert (found["lid"], found["root"]) == ("ignore", "no")
    assert [words.partition(" defined in ")[0] for words in found["warnings"]] == [
        "The option `services.logind.lidSwitch'",
        "The option `services.openssh.permitRootLogin'",
    ]
    assert "has been renamed to `services.logind.settings.Login.HandleLidSwitch'." in found["warnings"][0]
    assert [words for words in found["failed"] if "systemd.sleep.extraConfig" in words]


def test_options_tell_what_there_is_without_a_value() -> None:
    assert value(
        """let o = (nixos [{services.caddy.enable = true;}]).options; in {
          there = o ? services.caddy.virtualHosts;
          not = o ? services.cady;
          type = o.services.caddy.virtualHosts.type.description;
          set = o.services.caddy.enable.definitions;
        }"""
    ) == {"there": True, "not": False, "type": "attribute set of (submodule)", "set": [True]}


def test_a_module_may_ask_which_options_there_are_before_it_says_what_it_sets() -> None:
    """As those do that others import, whose flakes may have no sops-nix."""
    module = """({options, lib, ...}: {
      config = lib.mkIf true ({services.caddy.email = "a";} // lib.optionalAttrs (options ? sops) {services.caddy.email = lib.mkForce "b";});
    })"""  # noqa: E501
    assert value(f"map (m: (system m).services.caddy.email) [[{module}] [{module} sops]]") == ["a", "b"]


@pytest.mark.parametrize("table", ["nixos", "home-manager"])
def test_the_tables_are_whole(table: str) -> None:
    handed = SHARED / f"{table}-options.tsv"
    if not handed.exists():
        pytest.skip("the tables that this one was made from are not here")
    sets = ["home-manager"] if table == "home-manager" else ["nixos", "home-manager-nixos", "sops-nix", "disko"]
    declared = {name: kind for where in sets for name, kind in options()[where].items()}
    lines = [line.split("\t") for line in handed.read_text().splitlines()]
    assert [name for name, kind in lines if declared.get(name) != kind] == []


def test_every_name_and_every_type_is_read() -> None:
    assert sum(map(len, options().values())) > 32_000
    assert {where for where in SETS if not options()[where]} == set()
    assert all(parts(name) for each in options().values() for name in each)
    assert all(gone.now is None or parts(gone.now) for each in former().values() for gone in each)
    kinds = {kind for each in options().values() for kind in each.values()}
    assert len([kind for kind in kinds if "any" in str(parse(kind))]) < len(kinds) / 3


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("boolean", "bool"),
        ("null or (list of string)", ["nullOr", ["listOf", "str"]]),
        ("list of (submodule)", ["listOf", "submodule"]),
        (
            'strings concatenated with "\\n" or (list of string) convertible to it',
            ["either", [["separated", "\n"], ["listOf", "str"]]],
        ),
        ("16 bit unsigned integer; between 0 and 65535 (both inclusive)", ["between", 0, 65535]),
        ('null or one of "a or b", "c)", 3, false', ["nullOr", ["enum", ["a or b", "c)", 3, False]]]),
        ("null or string or absolute path", ["nullOr", ["either", ["str", "path"]]]),
        (
            "(attribute set of (string or package)) or list of package",
            ["either", [["attrsOf", ["either", ["str", "package"]]], ["listOf", "package"]]],
        ),
        ("open submodule of (JSON value)", ["open", "any"]),
        ("non-empty (list of string)", ["nonEmptyListOf", "str"]),
        ('value "disk" (singular enum)', ["enum", ["disk"]]),
        ("string matching the pattern [a-z]+", ["matching", "[a-z]+"]),
        ("null or string matching the pattern a or null", "any"),
        ("a format of (one program", "any"),
    ],
)
def test_types_are_read_from_their_words(text: str, kind: Any) -> None:
    assert parse(text) == kind


def test_the_stand_in_declares_nothing_that_the_real_modules_do_not() -> None:
    """An option of its own over several real ones would take whatever is set below it."""
    declared = value(
        """
        let
          walk = path: o: lib.concatLists (lib.mapAttrsToList (name: below: let
            here = path ++ [name];
          in
            if !(lib.isOption below) then walk here below
            else lib.optional (below.declarations != ["nixpkgs"]) (lib.concatStringsSep "." here)) o);
          of = o: walk [] (removeAttrs o ["_module"]);
        in {
          nixos = of (nixos [disko sops homes]).options;
          home = of (homeFrom {inherit lib pkgs; modules = []; extraSpecialArgs = {};}).options;
        }"""
    )
    machine = {name for where in ("nixos", "home-manager-nixos", "sops-nix", "disko") for name in options()[where]}
    # `meta` is every module's; the units that Debian has and a machine must not start are the lab's own
    assert set(declared["nixos"]) - machine == {"meta", "systemd.maskedUnits"}
    assert set(declared["home"]) - set(options()["home-manager"]) <= {"qt.platformTheme.name"}
