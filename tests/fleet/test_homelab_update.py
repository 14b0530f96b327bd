"""What homelab.update and homelab.ci.rollingFlakeUpdate make of a machine, and what they refuse.

The modules alone, as a foreign flake has them: without the fleet's special arguments.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import nix, nix_json, stand_ins

pytestmark = pytest.mark.nix

MODULES = Path(__file__).parent.parent.parent / "fleet/modules/nixos"
PRELUDE = """
  let
    lib = import NIXPKGS/lib;
    machine = module: (import NIXPKGS/nixos/lib/eval-config.nix {
      inherit lib;
      system = "x86_64-linux";
      modules = [
        MODULES/nixherd.nix
        MODULES/pull.nix
        MODULES/homelab/update
        MODULES/homelab/ci
        {
          networking.hostName = "web01";
          boot.loader.systemd-boot.enable = true;
          fileSystems."/" = { device = "/dev/sda2"; fsType = "ext4"; };
        }
        module
      ];
    }).config;
    failing = config: map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
    refused = value: !(builtins.tryEval (builtins.deepSeq value true)).success;
    publicKey = "c-1:${lib.concatStrings (lib.genList (_: "A") 43)}=";
    pull.nixherd.pull = { from = "https://cache.example"; inherit publicKey; };
    updates = more: { imports = [pull]; homelab.update = { enable = true; } // more; };
    rolls = more: { homelab.ci.rollingFlakeUpdate = { enable = true; repoDir = "/home/alice/fleet"; } // more; };
    signingKeyFile = "/run/secrets/key";
    tokenFile = "/run/secrets/token";
    laptop = machine {
      imports = [(updates {
        updateDates = "Sat 04:00"; gcDates = "Sun 05:00"; trimInterval = "daily"; wakeOnUpdate = true;
        checkAcPower = true; checkWifi = ["our net" "it's"]; rebootOnKernelUpdate = true;
      })];
      networking.networkmanager.enable = true;
      nix.gc.options = "--delete-older-than 7d";
    };
    server = machine {
      imports = [(updates {}) (rolls { branch = "main"; inherit signingKeyFile tokenFile; })];
    };
  in
"""
CASES = """{
  server = {
    timer = server.systemd.timers.nixos-upgrade.timerConfig;
    pulls = server.systemd.timers ? nixherd-pull;
    gc = { inherit (server.nix.gc) automatic dates options; };
    trim = { inherit (server.services.fstrim) enable interval; };
    wrong = failing server;
    trigger = server.nixherd.access.trigger;
    cache = server.homelab.ci.rollingFlakeUpdate.cacheDir;
    rolling = server.systemd.timers.rolling-flake-update.timerConfig;
  };
  laptop = {
    timer = laptop.systemd.timers.nixos-upgrade.timerConfig;
    gc = { inherit (laptop.nix.gc) automatic dates options; };
    trim = laptop.services.fstrim.interval;
    wrong = failing laptop;
  };
  off = let config = machine {}; in {
    timers = builtins.attrNames config.systemd.timers;
    wrong = failing config;
    gc = config.nix.gc.automatic;
    trim = config.services.fstrim.enable;
  };
  pulls = (machine pull).systemd.timers.nixherd-pull.timerConfig.OnCalendar;
  kept = let config = machine (updates { collectGarbage = false; trim = false; }); in
    [config.nix.gc.automatic config.services.fstrim.enable];
  wrong = {
    nothing = failing (machine { homelab.update.enable = true; });
    twice = failing (machine { imports = [(updates {})]; system.autoUpgrade.enable = true; });
    wifi = failing (machine (updates { checkWifi = true; }));
    ssids = failing (machine (updates { checkWifi = ["home"]; }));
    none = failing (machine (updates { checkWifi = []; }));
    container = failing (machine { imports = [(updates { rebootOnKernelUpdate = true; })]; boot.isContainer = true; });
    unsigned = failing (machine (rolls {}));
    store = failing (machine (rolls { signingKeyFile = "/nix/store/x-key"; }));
    token = failing (machine (rolls { signingKeyFile = "/run/key"; tokenFile = "/nix/store/x-token"; }));
  };
  types = map refused [
    (machine (updates { checkWifi = "home"; })).homelab.update.checkWifi
    (machine (updates { checkWifi = [""]; })).homelab.update.checkWifi
    (machine (updates { checkWifi = ["this one is longer than 32 characters"]; })).homelab.update.checkWifi
    (machine (updates { updateDates = 3; })).homelab.update.updateDates
    (machine (rolls { repoDir = "fleet"; })).homelab.ci.rollingFlakeUpdate.repoDir
    (machine (rolls { branch = "-x"; })).homelab.ci.rollingFlakeUpdate.branch
  ];
}"""


def expression(text: str) -> str:
    return PRELUDE.replace("NIXPKGS", f"{stand_ins()}/nixpkgs").replace("MODULES", str(MODULES)) + text


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    found: dict[str, Any] = nix_json("eval", "--impure", "--json", "--expr", expression(CASES))
    return found


def test_what_is_on_is_a_timer_and_what_is_off_is_nothing(seen: dict[str, Any]) -> None:
    assert seen["server"] == {
        "timer": {
            "OnCalendar": "03:00",
            "RandomizedDelaySec": "30min",
            "FixedRandomDelay": True,
            "Persistent": True,
            "WakeSystem": False,
        },
        "pulls": False,  # one schedule
        "gc": {"automatic": True, "dates": "03:30", "options": "--delete-older-than 30d"},
        "trim": {"enable": True, "interval": "weekly"},
        "wrong": [],
        "trigger": "systemctl start --wait nixherd-pull.service",  # a person who asks is not asked for a battery
        "cache": "/var/lib/rolling-flake-update/cache",
        "rolling": {"OnCalendar": "22:15", "Persistent": True},
    }
    assert seen["laptop"].pop("timer") == {**seen["server"]["timer"], "OnCalendar": "Sat 04:00", "WakeSystem": True}
    assert seen["laptop"] == {
        "gc": {"automatic": True, "dates": "Sun 05:00", "options": "--delete-older-than 7d"},
        "trim": "daily",
        "wrong": [],
    }
    assert seen["off"] == {"timers": [], "wrong": [], "gc": False, "trim": False}
    assert seen["pulls"] == "03:00"
    assert seen["kept"] == [False, False]


def test_what_cannot_be_is_refused_with_a_remedy(seen: dict[str, Any]) -> None:
    remedies = {
        "nothing": "set nixherd.pull.from to the URL of a cache",
        "twice": "set system.autoUpgrade.enable = false",
        "wifi": "set networking.networkmanager.enable = true, or homelab.update.checkWifi = false",
        "ssids": "set networking.networkmanager.enable = true",
        "container": "set it to false",
        "unsigned": "Set signingKeyFile to a file",
        "store": "every user can read the store",
        "token": "every user can read the store",
    }
    assert seen["wrong"].pop("none") == []
    assert {case: [remedy in message for message in seen["wrong"][case]] for case, remedy in remedies.items()} == {
        case: [True] for case in remedies
    }
    assert seen["types"] == [True] * 6


def test_the_programs_are_as_shellcheck_wants_them() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not on PATH")
    programs = [*MODULES.glob("homelab/update/*.sh"), *MODULES.glob("homelab/ci/*.sh"), MODULES / "pull.sh"]
    assert len(programs) >= 4
    done = subprocess.run([shellcheck, *programs], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def units() -> list[Path]:
    both = expression("[laptop.system.build.units server.system.build.units]")
    made = nix("build", "--impure", "--no-link", "--print-out-paths", "--expr", both)
    return [Path(line) for line in made.split()]


def by_name(units: list[Path], name: str) -> list[str]:
    return [(unit / name).read_text() for unit in units if (unit / name).exists()]


def starts(unit: str) -> str:
    """The program that a unit starts, as it is in the store."""
    [line] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    return Path(line.removeprefix("ExecStart=").strip()).read_text()


def test_an_update_is_never_ended_by_what_it_activates(units: list[Path]) -> None:
    texts = by_name(units, "nixos-upgrade.service") + by_name(units, "rolling-flake-update.service")
    assert len(texts) == 3
    for text in texts:
        assert "X-RestartIfChanged=false" in text
        assert "X-StopIfChanged=false" in text
        assert "X-StopOnRemoval=false" in text


def test_the_gates_get_their_words_whole(units: list[Path]) -> None:
    programs = sorted(starts(text) for text in by_name(units, "nixos-upgrade.service"))
    words = [program.partition("/sys/class/power_supply")[2].strip() for program in programs]
    assert sorted(words) == ["- -", "mains unmetered 'our net' 'it'\\''s'"]
    assert sorted(" boot " in program for program in programs) == [False, True]


def test_no_secret_is_in_a_command_or_an_environment(units: list[Path]) -> None:
    [text] = by_name(units, "rolling-flake-update.service")
    credentials = [line for line in text.splitlines() if line.startswith("LoadCredential=")]
    assert credentials == [
        "LoadCredential=clone:/home/alice/fleet/.git/config",
        "LoadCredential=key:/run/secrets/key",
        "LoadCredential=token:/run/secrets/token",
    ]
    assert "/run/secrets" not in "".join(line for line in text.splitlines() if line not in credentials) + starts(text)


def test_systemd_takes_the_units_and_their_times(units: list[Path], tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on PATH")
    ours = ("nixos-upgrade.service", "nixos-upgrade.timer", "nixos-upgrade-waits.timer", "nixherd-pull.service")
    for number, unit in enumerate(units):
        directory = tmp_path / str(number)
        directory.mkdir()
        names = [
            name
            for name in (*ours, "rolling-flake-update.service", "rolling-flake-update.timer")
            if (unit / name).exists()
        ]
        assert len(names) >= len(ours)
        for name in names:
            shutil.copy(unit / name, directory)
        done = subprocess.run(
            [analyze, "verify", "--man=no", "--recursive-errors=no", *(directory / name for name in names)],
            env={"SYSTEMD_UNIT_PATH": f"{directory}:", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for name in names:
            for line in (unit / name).read_text().splitlines():
                if line.startswith("OnCalendar="):
                    time = line.removeprefix("OnCalendar=")
                    assert subprocess.run([analyze, "calendar", time], capture_output=True).returncode == 0, time
