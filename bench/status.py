"""`nixherd status --no-eval --no-vm` of light hosts compared with one raw round trip to each of them, as many at once.

The raw round trip is OpenSSH that has `true` run, with the pinned keys and the key exchange that ours chooses. Both
connect to a hundred hosts at a time, and are timed inside the lab, side by side in each round.
"""

import json

from bench import deploy
from bench.results import Comparison

COUNT = 100
LIMIT = 1.2
SEEN = deploy.LAB / "status.json"
# The status is 1 where anything differs, and 5 where something is not known, such as what was never evaluated.
OURS = (
    f"nixherd status --no-eval --no-vm 'light*' --json >{SEEN} 2>/dev/null; case $? in 0 | 1 | 5) ;; *) false ;; esac"
)
KEX = "-o KexAlgorithms=curve25519-sha256"
RAW = f"""xargs -P {COUNT} -n 2 sh -c 'ssh {KEX} {deploy.SSH} root@$2 true' sh <"$HOSTS" """


def timed(script: str) -> float:
    """Return the seconds that it took, without the lab's own beginning."""
    took = deploy.inside(f"begin=$(date +%s%N); {{ {script}; }} || exit 1; echo $(($(date +%s%N) - begin))")
    return int(took) / 1e9


def require_all_answered() -> None:
    hosts = json.loads(SEEN.read_text())["hosts"]
    answered = [host["host"] for host in hosts if host["reach"]["answered"]]
    if len(answered) != COUNT:
        raise SystemExit(f"{len(answered)} of {COUNT} hosts answered")


def main(rounds: int) -> int:
    times: dict[str, list[float]] = {"ours": [], "raw": []}
    try:
        deploy.prepare(COUNT)
        timed(OURS)  # compiles our modules
        for _ in range(rounds):
            times["ours"].append(timed(OURS))
            require_all_answered()
            times["raw"].append(timed(RAW))
    finally:
        deploy.lab("down")
    return 0 if Comparison(f"status-{COUNT}", times["ours"], times["raw"], LIMIT).report() else 1
