"""The command `python -m lab`: a Proxmox VE node and real machines on this computer, for the demo, tests and trials."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab import control, light
from lab.broken import break_host, faults
from lab.control import Running
from lab.errors import LabError
from lab.machines.network import GATEWAY
from lab.places import Places, cache_directory
from lab.setup import prepare_nix, programs


def main(argv: list[str]) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(argv)
    try:
        status: int = options.act(Places.here(), options)
        return status
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, act: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        return made

    up = command("up", _up, "start the lab, and set up what it needs")
    up.add_argument(
        "--hosts", type=_count, default=1, metavar="N", help="managed VMs that the fleet declares (1 to 40)"
    )
    command("down", _down, "stop the lab and remove everything that it started")
    reset = command("reset", _reset, "restore the start state")
    reset.add_argument(
        "--patch", type=_object, metavar="JSON", help="until the next reset, apply this merge patch (RFC 7396)"
    )
    command("status", _status, "what runs")
    run = command("run", _run, "run a command inside, with FLEET, PROXMOX_TOKEN_FILE, HOME and PATH set")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command("shell", _shell, "a shell inside")
    command("demo", _demo, "the main workflow from start to proof, in the lab")
    log = command("log", _log, "print the API requests, one JSON line each")
    log.add_argument("-f", "--follow", action="store_true", help="keep printing new requests")
    fault = command("fault", _fault, "switch a fault on or off; without a name: list the faults")
    fault.add_argument("name", nargs="?")
    fault.add_argument("switch", nargs="?", default="on", help="on (default), off, or the first KEY=VALUE")
    fault.add_argument("parameters", nargs="*", metavar="KEY=VALUE")
    deployed = command("fleet", _fleet, "start the lab with N machines that are already deployed")
    deployed.add_argument("count", type=int, metavar="N")
    deployed.add_argument("--light", action="store_true", help="without systemd and disks: a hundred in seconds")
    broken = command(
        "break", _break, "break a host's next system; without faults: repair it; without a host: list them"
    )
    broken.add_argument("host", nargs="?")
    broken.add_argument("faults", nargs="*", metavar="FAULT")
    nix = command("nix", _nix, "run a command outside the lab with Nix and sops on its PATH; builds them if needed")
    nix.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command("programs", _programs, "build what only tests need: the gate's tools, compose-go, actionlint, act")
    commands.add_parser("api", help="run the API emulator alone, without real machines", add_help=False)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 40:
        raise argparse.ArgumentTypeError("1 to 40")
    return int(text)


def _object(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("a JSON object, in the shape of the lab's state.json")
    return value


def _progress(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _up(places: Places, options: argparse.Namespace) -> int:
    began = time.monotonic()
    control.up(places, options.hosts, _progress)
    _progress(f"up after {time.monotonic() - began:.1f} s; try: python -m lab status")
    return 0


def _down(places: Places, options: argparse.Namespace) -> int:
    _progress("down" if control.down(places) else "it was not running")
    return 0


def _reset(places: Places, options: argparse.Namespace) -> int:
    began = time.monotonic()
    control.reset(places, options.patch)
    _progress(f"reset in {time.monotonic() - began:.1f} s")
    return 0


def _status(places: Places, options: argparse.Namespace) -> int:
    running = Running.find(places)
    if running is None:
        print("down")
        return 3
    print(f"up: PID 1 is {running.pid}, API at https://{GATEWAY}:{control.PORT} inside, fleet {places.fleet}")
    for vm in control.virtual_machines(places, running):
        print(f"{vm['vmid']:>6}  {vm['status']:8} {vm['name']}")
    return 0


def _run(places: Places, options: argparse.Namespace) -> int:
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not argv:
        raise LabError("no command; use: python -m lab run -- CMD …")
    running = Running.require(places)
    sys.stdout.flush()
    inside = running.inside(argv, Path.cwd())
    os.execvpe(inside[0], inside, running.environment(places))


def _demo(places: Places, options: argparse.Namespace) -> int:
    from lab.demo import demo  # the other commands do not need these imports

    demo(places)
    return 0


def _shell(places: Places, options: argparse.Namespace) -> int:
    options.command = [os.environ.get("SHELL") or "/bin/sh"]
    return _run(places, options)


def _log(places: Places, options: argparse.Namespace) -> int:
    if not places.api_log.exists():
        raise LabError("no log yet; start the lab with: python -m lab up")
    return subprocess.call(["tail", "-n", "+1", *(["-f"] if options.follow else []), str(places.api_log)])


def switchable() -> dict[str, str]:
    """Return the parameters and the effect of every fault of the API and the machines, by name."""
    from lab.api.faults import FAULTS as OF_THE_API
    from lab.machines.machine import FAULTS as OF_MACHINES

    return {**OF_THE_API, **OF_MACHINES}


def _fault(places: Places, options: argparse.Namespace) -> int:
    known = switchable()
    if options.name is None:
        for name, text in known.items():
            print(f"{name:16} {text}")
        return 0
    if options.name not in known:
        raise LabError(f"unknown fault {options.name}; known faults: {', '.join(known)}")
    words = options.parameters
    if options.name == "impostor":
        options.switch, words = _cast(places, [options.switch, *words])
    if "=" in options.switch:
        options.switch, words = "on", [options.switch, *words]
    if options.switch not in ("on", "off") or not all("=" in item for item in words):
        raise LabError(f"python -m lab fault {options.name} [on|off] [KEY=VALUE …]")
    parameters = {key: _value(value) for key, _, value in (item.partition("=") for item in words)}
    body = {**parameters, "name": options.name, "on": options.switch == "on"}
    control.request(places, Running.require(places), "POST", "/_lab/fault", body)
    return 0


def _cast(places: Places, words: list[str]) -> tuple[str, list[str]]:
    """Convert `HOST VMID KEY=VALUE …` or `off HOST` to the arguments of other faults."""
    names = {str(vm["name"]): int(vm["vmid"]) for vm in control.virtual_machines(places, Running.require(places))}
    off = words[:1] == ["off"]
    machine, *rest = [*(words[1:] if words[:1] in (["on"], ["off"]) else words), ""]
    vmid, other = (str(names.get(word, word)) for word in (machine, rest[0] if rest else ""))
    if not vmid.isdigit() or not (off or other.isdigit()):
        raise LabError("python -m lab fault impostor HOST VMID [KEY=VALUE …], or: fault impostor off HOST")
    return ("off", [f"vmid={vmid}"]) if off else ("on", [f"vmid={vmid}", f"other={other}", *filter(None, rest[1:])])


def _fleet(places: Places, options: argparse.Namespace) -> int:
    began = time.monotonic()
    running = Running.find(places) if options.light else None
    running = running or control.up(places, 1 if options.light else options.count, _progress)
    environment = running.environment(places)
    if options.light:
        base = json.loads((places.state / "supervisor.json").read_text())["base"]
        light.make(places, base, options.count, running.inside, environment)
    else:
        control.reset(places)
        limits = [word for number in range(options.count) for word in ("--limit", f"dev{number + 1 if number else ''}")]
        words = ["pyinfra", "-y", "inventory.py", "deploys/enroll.py", "deploys/provision.py", *limits]
        done = subprocess.run(running.inside(words, places.checkout), env=environment, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"provisioning failed:\n{done.stdout}{done.stderr}")
    _progress(f"{options.count} deployed machines after {time.monotonic() - began:.1f} s")
    return 0


def _break(places: Places, options: argparse.Namespace) -> int:
    if options.host is None:
        for name, text in faults().items():
            print(f"{name:16} {text}")
        return 0
    break_host(places.fleet, options.host, options.faults, os.environ)
    return 0


def _value(text: str) -> object:
    """Return a number or boolean if the text reads as one, otherwise the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _programs(places: Places, options: argparse.Namespace) -> int:
    programs.build(cache_directory(), _progress)
    return 0


def _nix(places: Places, options: argparse.Namespace) -> int:
    nix, tools = prepare_nix(cache_directory(), _progress)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("no command; use: python -m lab nix -- CMD …")
    environment = os.environ | {"PATH": f"{nix.bin}:{tools}:{os.environ['PATH']}", "NIX_CONF_DIR": str(nix.conf)}
    if nix.of_the_lab and os.geteuid() == 0:
        # Without Nix on this computer, mount the lab's /nix for this command only.
        places.nix_root.mkdir(parents=True, exist_ok=True)
        Path("/nix").mkdir(exist_ok=True)
        bound = 'mount --bind "$0" /nix && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bound, str(places.nix_root), *command]
    os.execvpe(command[0], command, environment)
