"""PID 1 of the lab: owns the namespaces; everything in them ends when it does.

Started as `unshare -p -f --kill-child -m -n --mount-proc python -m lab.supervisor REPORT WORD`, with the numbers of two
pipes. It writes a line to REPORT, "ready" or the error; then it ends unless WORD confirms. Its orders are in
`.lab/supervisor.json` (see `Orders`).
"""

import json
import os
import pwd
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from lab.places import Places


@dataclass(frozen=True)
class Orders:
    """The decisions of `up`: paths from set-up, whether /nix is the lab's own."""

    base: str
    template: str
    own_nix: bool

    @classmethod
    def read(cls, places: Places) -> "Orders":
        return cls(**json.loads((places.state / "supervisor.json").read_text()))


def main(arguments: list[str]) -> int:
    places = Places.here()
    report, word = map(int, arguments)
    for pipe in (report, word):
        os.set_inheritable(pipe, False)
    try:
        orders = Orders.read(places)
        arrange(places, orders)
    except (OSError, subprocess.CalledProcessError) as error:
        os.write(report, f"{error}\n".encode())
        return 1
    incoming, outgoing = os.pipe()
    server = os.fork()
    if server == 0:
        for pipe in (report, word, incoming):
            os.close(pipe)
        os.dup2(outgoing, 1)
        serve(places, orders)
        os._exit(0)
    os.close(outgoing)
    threading.Thread(target=_forward, args=(incoming, report, word), daemon=True).start()
    while True:  # reap orphans until the server ends
        pid, status = os.wait()
        if pid == server:
            print(f"the lab's server ended ({os.waitstatus_to_exitcode(status)})", file=sys.stderr, flush=True)
            return 1


def _forward(incoming: int, report: int, word: int) -> None:
    """Pass the server's first line on to `up` and wait for its confirmation; pass the other lines to our stderr."""
    with os.fdopen(incoming) as lines:
        try:
            os.write(report, lines.readline().encode())
        except BrokenPipeError:
            os._exit(1)
        if not os.read(word, 1):  # `up` has ended without recording this lab
            os._exit(1)
        os.close(report)
        for line in lines:
            sys.stderr.write(line)


def arrange(places: Places, orders: Orders) -> None:
    """Mount what only this namespace sees. Raises CalledProcessError."""
    # Shared within this namespace: with private mounts each guest would pin the others' mounts.
    _mount("--make-rprivate", "/")
    _mount("--make-rshared", "/")
    for directory in ("/run/netns", "/run/systemd"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "tmpfs", directory)
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():  # old or mixed hierarchies: show the unified one
        _mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    run = places.state / "run"
    run.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(run))
    if orders.own_nix:
        places.nix_root.mkdir(exist_ok=True)
        Path("/nix").mkdir(exist_ok=True)
        _mount("--bind", str(places.nix_root), "/nix")
    # ssh uses the home of the password file, whatever HOME is: the lab's keys and hosts, not the user's.
    theirs = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    theirs.mkdir(mode=0o700, exist_ok=True)
    _mount("--bind", str(places.home / ".ssh"), str(theirs))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)


def serve(places: Places, orders: Orders) -> None:
    """Run emulator and machines in this process."""
    from lab.api.server import serve as serve_api
    from lab.machines.backend import MachinesBackend
    from lab.machines.network import GATEWAY
    from lab.machines.volumes import Volumes
    from lab.start import IMAGE, TEMPLATE_DISK

    volumes = Volumes(places.disks, dict.fromkeys((TEMPLATE_DISK, IMAGE), Path(orders.template)))
    backend = MachinesBackend(Path(orders.base), volumes, places.state / "run", places.consoles, places.name)
    state = json.loads((places.state / "state.json").read_text())
    serve_api(state, backend, (GATEWAY, 8006), places.certificate, places.certificate_key, places.api_log)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
