"""Whether a machine may update itself now: the real program, with the files of a kernel and an nmcli of ours."""

import subprocess
from pathlib import Path

import pytest

GATES = Path(__file__).parent.parent.parent / "fleet/modules/nixos/homelab/update/gates.sh"
OPEN, CLOSED = 0, 75

MAINS = {"type": "Mains", "online": "1"}
UNPLUGGED = {"type": "Mains", "online": "0"}
DISCHARGES = {"type": "Battery", "status": "Discharging"}
CHARGES = {"type": "Battery", "status": "Charging"}
FULL = {"type": "Battery", "status": "Full"}
USB = {"type": "USB", "online": "1"}
MOUSE = {"type": "Battery", "scope": "Device", "status": "Discharging"}


def gates(*words: str | Path, path: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/sh", GATES, *words],
        env={"PATH": f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin", "LC_ALL": "de_DE.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("supplies", "message"),
    [
        ({"AC": MAINS}, "open: on mains (AC)"),
        ({"AC": MAINS, "BAT0": FULL}, "open: on mains (AC)"),
        ({"AC": MAINS, "BAT0": DISCHARGES}, "open: on mains (AC)"),
        ({"ADP1": UNPLUGGED, "BAT0": DISCHARGES}, "waits: on battery (BAT0 discharges)"),
        ({"AC0": UNPLUGGED, "AC1": MAINS, "BAT0": DISCHARGES}, "open: on mains (AC1)"),
        ({"AC0": MAINS, "AC1": UNPLUGGED, "BAT0": DISCHARGES}, "open: on mains (AC0)"),
        ({"BAT0": FULL, "BAT1": DISCHARGES}, "waits: on battery (BAT1 discharges)"),
        ({"BAT0": DISCHARGES, "ucsi": USB}, "waits: on battery (BAT0 discharges)"),
        ({"AC": UNPLUGGED, "BAT0": CHARGES, "ucsi": USB}, "open: powered by (ucsi)"),
        ({"AC": UNPLUGGED, "BAT0": CHARGES}, "open: powered by (BAT0)"),
        ({"ucsi": USB}, "open: powered by (ucsi)"),
        ({"BAT0": FULL}, "open: BAT0 does not discharge"),
        ({"ups": {"type": "UPS", "status": "Discharging"}}, "waits: on battery (ups discharges)"),
        ({"AC": MAINS, "mouse": MOUSE}, "open: on mains (AC)"),
        # what it does not say is not known, and not mains
        ({}, "unknown: the kernel reports neither mains nor battery"),
        ({"mouse": MOUSE}, "unknown: the kernel reports neither mains nor battery"),
        ({"AC": {"type": "Mains"}}, "unknown: the kernel reports neither mains nor battery"),
        ({"BAT0": {"type": "Battery", "status": "Unknown"}}, "unknown: the kernel reports neither mains nor battery"),
        ({"ucsi": {"type": "USB", "online": "0"}}, "unknown: the kernel reports neither mains nor battery"),
        ({"AC": UNPLUGGED}, "unknown: mains are off, and no battery reports that it discharges"),
        ({"AC": UNPLUGGED, "BAT0": FULL}, "unknown: mains are off, and BAT0 reports that it does not discharge"),
        (None, "unknown: the kernel reports neither mains nor battery"),
    ],
)
def test_power(tmp_path: Path, supplies: dict[str, dict[str, str]] | None, message: str) -> None:
    for name, attributes in (supplies or {}).items():
        (tmp_path / "power" / name).mkdir(parents=True)
        for attribute, value in attributes.items():
            (tmp_path / "power" / name / attribute).write_text(f"{value}\n")
    if supplies is not None:
        (tmp_path / "power").mkdir(exist_ok=True)
    status, line = gates(tmp_path / "power", "mains", "-")
    assert line.startswith(f"power: {message}")
    assert status == (OPEN if ": open: " in line else CLOSED)


def network_manager(
    directory: Path, devices: str, ssid: str = "", metered: str = "no (guessed)", status: int = 0
) -> Path:
    """An nmcli that answers what gates.sh asks, and nothing else."""
    program = directory / "nmcli"
    (directory / "devices").write_text(devices)
    (directory / "ssid").write_text(ssid and f"{ssid}\n")
    program.write_text(
        f"""#!/bin/sh
        [ "$LC_ALL" = C ] && [ {status} = 0 ] || exit {status or 1}
        case $* in
        '--terse --escape no --fields TYPE,STATE,DEVICE device status') cat {directory}/devices ;;
        '--terse --escape no --get-values GENERAL.METERED device show '*) echo '{metered}' ;;
        '--terse --escape no --fields ACTIVE,SSID device wifi list --rescan no ifname '*)
            echo no:neighbour; [ ! -s {directory}/ssid ] || sed s/^/yes:/ {directory}/ssid; echo no: ;;
        *) exit 2 ;;
        esac
        """
    )
    program.chmod(0o755)
    return directory


WIFI = "wifi:connected:wlp1s0\nloopback:connected (externally):lo\nwifi-p2p:disconnected:p2p-dev-wlp1s0\n"
WIRE = "ethernet:connected:enp2s0\n"
TUNNEL = "tun:connected (externally):tailscale0\n"


@pytest.mark.parametrize(
    ("devices", "ssid", "metered", "allowed", "message"),
    [
        (WIFI, "home", "no (guessed)", (), "open: by home"),
        (WIFI, "home", "no", ("office", "home"), "open: by home"),
        (WIFI, "home", "yes", (), "waits: home is metered"),
        (WIFI, "phone", "yes (guessed)", ("phone",), "waits: phone is metered"),
        (WIFI, "cafe", "no", ("home",), "waits: cafe is not listed in homelab.update.checkWifi"),
        (WIFI, "homer", "no", ("home",), "waits: homer is not listed in"),
        (WIFI, "home", "no", ("ho.*", "h*"), "waits: home is not listed in"),
        (WIFI, "our: net", "no", ("our: net",), "open: by our: net"),
        (WIFI, "-n", "no", ("-n",), "open: by -n"),
        (WIRE + WIFI, "cafe", "no", ("home",), "open: by cable (enp2s0)"),
        (WIRE, "", "yes (guessed)", (), "waits: enp2s0 is metered"),
        (TUNNEL + WIFI, "home", "no", (), "open: by home"),
        ("gsm:connected:ttyUSB0\n", "", "no", (), "waits: by a mobile network"),
        ("bt:connected:AA:BB:CC:DD:EE:FF\n", "", "no", (), "waits: by a mobile network"),
        ("wifi:disconnected:wlp1s0\n", "", "no", (), "waits: not connected"),
        ("wifi:connecting (getting IP configuration):wlp1s0\n", "", "no", (), "waits: not connected"),
        (TUNNEL, "", "no", (), "waits: not connected"),
        # what it does not say is not known, and not free of charge
        (WIFI, "home", "unknown", (), "unknown: whether home is metered"),
        (WIFI, "home", "", ("home",), "unknown: whether home is metered"),
        (WIRE, "", "unknown", (), "unknown: whether enp2s0 is metered"),
        (WIFI, "", "no", (), "unknown: the wireless network of wlp1s0"),
    ],
)
def test_network(tmp_path: Path, devices: str, ssid: str, metered: str, allowed: tuple[str, ...], message: str) -> None:
    path = network_manager(tmp_path, devices, ssid, metered)
    status, line = gates("/nonexistent", "-", "unmetered", *allowed, path=path)
    assert line.startswith(f"network: {message}")
    assert status == (OPEN if ": open: " in line else CLOSED)


@pytest.mark.parametrize("status", [8, 127])
def test_a_network_manager_that_does_not_run_is_unknown(tmp_path: Path, status: int) -> None:
    path = network_manager(tmp_path, "", status=status)
    assert gates("/nonexistent", "-", "unmetered", path=path) == (
        CLOSED,
        "network: unknown: NetworkManager does not answer; without it, set homelab.update.checkWifi = false",
    )


def test_all_that_is_asked_has_to_be_open_and_each_is_said(tmp_path: Path) -> None:
    (tmp_path / "AC").mkdir()
    (tmp_path / "AC/type").write_text("Mains\n")
    (tmp_path / "AC/online").write_text("1\n")
    path = network_manager(tmp_path, WIFI, "home", "yes")
    assert gates(tmp_path, "mains", "unmetered", path=path) == (
        CLOSED,
        "power: open: on mains (AC)\nnetwork: waits: home is metered",
    )
    assert gates(tmp_path, "mains", "-", path=path) == (OPEN, "power: open: on mains (AC)")
    assert gates(tmp_path, "-", "-") == (OPEN, "")
