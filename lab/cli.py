"""python -m lab: a Proxmox VE node and real machines on this one, for demo, tests and play."""

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

FAULTS = {
    "lock-held": "vmid=N requests=N seconds=N: somebody else holds the VM's lock",
    "file-held": "vmid=N seconds=30: `qm cleanup` holds the lock of the VM's configuration file",
    "restart": "vmid=N message=TEXT: the second task of a reboot fails so; never=1: it does not come; seconds=N: late",
    "task-fails": "type=qmclone once=1: a task ends with an error after its 200",
    "task-killed": "type=qmclone: its worker dies half-way, what it held stays",
    "task-lost": "type=qmclone works=1: nobody knows of it any more; works=0: nor was it done",
    "drop-connection": "method=POST path=REGEX count=1: the request is done, its answer lost; refused=1: a refusal is",
    "timed-out": "method=POST path=REGEX count=1: the request is done, the answer is 596",
    "refused": "method=POST path=REGEX count=1: the request is not done, the answer is 595",
    "node-down": "node=NAME: that node does not answer",
    "hotplug-fails": "option=scsi1 count=1: that hotplug fails: the option waits, and the answer is 400",
    "storage-full": "storage=NAME: nothing more fits there",
    "stale-resources": "the cluster's list shows what it showed when this was switched on",
    "archive-damaged": "part=header|data: nothing of a backup can be read, or not to its end",
    "vmid-taken": "vmid=N: a stranger's VM appears there when somebody comes to make one",
    "agent-silent": "vmid=N: the guest agent never answers",
    "address-changes": "vmid=N: every boot gets another address",
    "address-moves": "vmid=N: addresses of running machines change now",
    "no-return": "vmid=N: a machine that reboots does not come back",
    "impostor": "HOST VMID marker=installer|clone|installed|own key=true address=true boot_id=true: HOST plays VMID",
}


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status."""
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

    up = command("up", _up, "start the lab, with everything that it needs")
    up.add_argument(
        "--hosts", type=_count, default=1, metavar="N", help="managed VMs that the fleet declares (1 to 40)"
    )
    command("down", _down, "end it; nothing stays")
    reset = command("reset", _reset, "bring the start state back")
    reset.add_argument(
        "--patch", type=_object, metavar="JSON", help="until the next reset, with this merge patch (RFC 7396) on it"
    )
    command("status", _status, "what runs")
    run = command("run", _run, "run a command inside, with FLEET, PROXMOX_TOKEN_FILE, HOME and PATH set")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command("shell", _shell, "a shell inside")
    command("demo", _demo, "the main job from the start to its proof, in a lab of its own")
    log = command("log", _log, "every API request, a JSON line each")
    log.add_argument("-f", "--follow", action="store_true", help="go on as requests come in")
    fault = command("fault", _fault, "switch a fault; without a name: list them")
    fault.add_argument("name", nargs="?")
    fault.add_argument("switch", nargs="?", default="on", help="on (default) or off, or already KEY=VALUE")
    fault.add_argument("parameters", nargs="*", metavar="KEY=VALUE")
    deployed = command("fleet", _fleet, "have N deployed machines to deploy to; starts the lab")
    deployed.add_argument("count", type=int, metavar="N")
    deployed.add_argument("--light", action="store_true", help="without systemd and disks: a hundred in seconds")
    broken = command("break", _break, "break the next system of a host; without faults: mend it; without a host: list")
    broken.add_argument("host", nargs="?")
    broken.add_argument("faults", nargs="*", metavar="FAULT")
    nix = command("nix", _nix, "run a command with Nix and sops on its PATH, outside the lab; made if there is none")
    nix.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD …")
    command("programs", _programs, "build what only tests need: the gate's tools, compose-go, actionlint, act")
    commands.add_parser("api", help="the API emulator alone, its machines being states", add_help=False)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 40:
        raise argparse.ArgumentTypeError("1 to 40")
    return int(text)


def _object(text: str) -> object:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("a JSON object, in the shape of the lab's state.json")
    return found


def _progress(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _up(places: Places, options: argparse.Namespace) -> int:
    began = time.monotonic()
    control.up(places, options.hosts, _progress)
    _progress(f"up after {time.monotonic() - began:.1f} s; try: python -m lab status")
    return 0


def _down(places: Places, options: argparse.Namespace) -> int:
    _progress("down" if control.down(places) else "was not up")
    return 0


def _reset(places: Places, options: argparse.Namespace) -> int:
    began = time.monotonic()
    control.reset(places, options.patch)
    _progress(f"as at the start, after {time.monotonic() - began:.1f} s")
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
        raise LabError("run what? python -m lab run -- CMD …")
    running = Running.require(places)
    sys.stdout.flush()
    inside = running.inside(argv, Path.cwd())
    os.execvpe(inside[0], inside, running.environment(places))


def _demo(places: Places, options: argparse.Namespace) -> int:
    from lab.demo import demo  # the other commands need none of it

    demo(places)
    return 0


def _shell(places: Places, options: argparse.Namespace) -> int:
    options.command = [os.environ.get("SHELL") or "/bin/sh"]
    return _run(places, options)


def _log(places: Places, options: argparse.Namespace) -> int:
    if not places.api_log.exists():
        raise LabError("no log yet; start the lab with: python -m lab up")
    return subprocess.call(["tail", "-n", "+1", *(["-f"] if options.follow else []), str(places.api_log)])


def _fault(places: Places, options: argparse.Namespace) -> int:
    if options.name is None:
        for name, text in FAULTS.items():
            print(f"{name:16} {text}")
        return 0
    if options.name not in FAULTS:
        raise LabError(f"no fault is called {options.name}; there are: {', '.join(FAULTS)}")
    given = options.parameters
    if options.name == "impostor":
        options.switch, given = _cast(places, [options.switch, *given])
    if "=" in options.switch:
        options.switch, given = "on", [options.switch, *given]
    if options.switch not in ("on", "off") or not all("=" in item for item in given):
        raise LabError(f"python -m lab fault {options.name} [on|off] [KEY=VALUE …]")
    parameters = {key: _value(value) for key, _, value in (item.partition("=") for item in given)}
    body = {**parameters, "name": options.name, "on": options.switch == "on"}
    control.request(places, Running.require(places), "POST", "/_lab/fault", body)
    return 0


def _cast(places: Places, words: list[str]) -> tuple[str, list[str]]:
    """`HOST VMID KEY=VALUE …` or `off HOST` in the words of every other fault."""
    names = {str(vm["name"]): int(vm["vmid"]) for vm in control.virtual_machines(places, Running.require(places))}
    off = words[:1] == ["off"]
    who, *rest = [*(words[1:] if words[:1] in (["on"], ["off"]) else words), ""]
    vmid, other = (str(names.get(word, word)) for word in (who, rest[0] if rest else ""))
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
    """A number or true/false where it reads as one, else the text."""
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
        raise LabError("no command; say: python -m lab nix -- CMD …")
    environment = os.environ | {"PATH": f"{nix.bin}:{tools}:{os.environ['PATH']}", "NIX_CONF_DIR": str(nix.conf)}
    if nix.of_the_lab and os.geteuid() == 0:
        # A machine without Nix stays one: its /nix is ours for this command alone.
        places.nix_root.mkdir(parents=True, exist_ok=True)
        Path("/nix").mkdir(exist_ok=True)
        bound = 'mount --bind "$0" /nix && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bound, str(places.nix_root), *command]
    os.execvpe(command[0], command, environment)
