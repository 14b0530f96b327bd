"""The same change to many light hosts, in three ways: sent over SSH, fetched from a cache, pulled.

Sent: `nixherd deploy`, every byte from the controller. Fetched: `nixherd publish` to a cache that a web server of the
lab serves, then the same deployment, for which machines fetch from it. Pulled: `nixherd publish`, then every machine
deploys to itself at the same moment, as by its timer. Each system differs from the previous one by PAYLOAD. Printed for
each: seconds until the last host runs it, seconds that an operator must attend, and MiB of memory on the controller.
Nothing is judged: docs/scale.md has the results.
"""

import json
import shutil
import subprocess
import sys
import time

from bench import deploy
from bench.memory import peak_of
from bench.results import DIRECTORY

COUNTS = (10, 100)
PAYLOAD = 4_000_000  # bytes
PORT = 8098
URL = f"http://{deploy.GATEWAY}:{PORT}"
CACHE = deploy.LAB / "cache"
MODULE = """
{{pkgs, ...}}: {{
  environment.etc.marker.text = "{marker}";
  environment.etc.payload.source = pkgs.runCommand "payload-{marker}" {{}} "head -c {payload} /dev/urandom >$out";
  nixherd.pull = {{ from = "{url}"; publicKey = "{key}"; }};
}}
"""
SENT = "nixherd deploy 'light*' --json --data substitute_on_destination=false >/dev/null 2>&1"
PUBLISH = f"nixherd publish {CACHE} 'light*' --key-file {deploy.LAB}/cache-key >/dev/null 2>&1"
# What a machine's timer starts, in its namespaces.
PULL_ONE = """#!/bin/sh
here=$(dirname "$0")
inside=$(pgrep -P "$(cat "$here/light/$1/pid")" | head -n 1)
exec nsenter -t "$inside" -m -n -u -p sh -c '
  export PATH=/run/current-system/sw/bin:/usr/bin HOME=/root NIX_CONF_DIR=/etc/nix
  unset NIX_REMOTE
  cd /
  unit=/run/current-system/etc/systemd/system/nixherd-pull.service
  exec $(sed -n s/^ExecStart=//p $unit)' >"$here/light/$1/pull.log" 2>&1
"""
PULL = f"ls {deploy.LAB}/light | xargs -P 100 -n 1 sh {deploy.LAB}/pull-one"


def key() -> str:
    made = f"umask 077; nix key generate-secret --key-name bench-1 >{deploy.LAB}/cache-key"
    return deploy.inside(f"{made}; nix key convert-secret-to-public <{deploy.LAB}/cache-key").split()[-1]


def timed(script: str) -> tuple[float, float]:
    """Return seconds and peak MiB."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "lab", *deploy.words_inside(script)]
    mib, status, output = peak_of(argv, deploy.environment())
    if status:
        raise SystemExit(f"{script[:200]}: {output}")
    return time.monotonic() - began, mib


def compare(count: int, public: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    ways = {"sent": [SENT], "fetched": [PUBLISH, deploy.OURS], "pulled": [PUBLISH, PULL]}
    for way, scripts in ways.items():
        marker = f"{way}-{count}"
        deploy.change(marker, MODULE.format(marker=marker, payload=PAYLOAD, url=URL, key=public))
        seconds, peaks = zip(*map(timed, scripts), strict=True)
        deploy.require(marker)
        attended = sum(seconds) if way != "pulled" else seconds[0]
        peak = max(peaks) if way != "pulled" else peaks[0]
        row = {"hosts": count, "way": way, "seconds": sum(seconds), "attended": attended, "mib": peak}
        print(f"scale-{count}-{way}: {sum(seconds):.1f} s, {attended:.1f} s attended, {peak:.0f} MiB", flush=True)
        rows.append(row)
    return rows


def main(rounds: int) -> int:
    """Run one round: only orders of magnitude matter."""
    DIRECTORY.mkdir(exist_ok=True)
    rows = []
    server = None
    try:
        for count in COUNTS:
            deploy.prepare(count)
            public = key()
            shutil.rmtree(CACHE, ignore_errors=True)  # systems signed by another key
            CACHE.mkdir()
            (deploy.LAB / "pull-one").write_text(PULL_ONE)
            if server is None:
                argv = [
                    "run",
                    "--",
                    "python3",
                    "-m",
                    "http.server",
                    "--bind",
                    deploy.GATEWAY,
                    "--directory",
                    str(CACHE),
                ]
                server = subprocess.Popen(
                    [sys.executable, "-m", "lab", *argv, str(PORT)],
                    env=deploy.environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            # machines can only pull once the pull unit is deployed
            deploy.change("first", MODULE.format(marker="first", payload=PAYLOAD, url=URL, key=public))
            deploy.inside(SENT)
            rows += compare(count, public)
    finally:
        if server:
            server.terminate()
        deploy.lab("down")
    (DIRECTORY / "scale.json").write_text(json.dumps(rows, indent=2) + "\n")
    return 0
