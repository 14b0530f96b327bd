"""Runs the machines' backend in namespaces of its own and takes calls on stdin: a JSON line {"call", "args"} each.

Answers {"result"} or {"error", "text"}. The `machines` fixture starts it in new namespaces, with its directory.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

from lab import setup
from lab.machines.backend import MachinesBackend
from lab.machines.volumes import Volumes
from lab.places import Places, cache_directory
from lab.start import TEMPLATE_DISK
from lab.supervisor import Orders, arrange


def main(checkout: Path) -> None:
    places = Places(checkout)
    (places.home / ".ssh").mkdir(parents=True)
    parts = setup.prepare(cache_directory(), lambda text: None)
    arrange(places, Orders(str(parts.base), str(parts.template), own_nix=False))
    volumes = Volumes(places.disks, {TEMPLATE_DISK: parts.template})
    backend = MachinesBackend(parts.base, volumes, places.state / "run", places.consoles, places.name)
    switched_off: list[int] = []
    backend.on_power_off(switched_off.append)
    answering = threading.Lock()

    def answer(request: dict[str, Any]) -> None:
        try:
            if request["call"] == "switched_off":
                result: object = switched_off
            else:
                result = getattr(backend, request["call"])(*request["args"])
            reply: dict[str, object] = {"result": result}
        except Exception as error:  # noqa: BLE001  (the test judges it)
            reply = {"error": type(error).__name__, "text": str(error)}
        with answering:
            print(json.dumps({"id": request["id"], **reply}), flush=True)

    print("ready", flush=True)
    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),)).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
