"""`python -m bench [NAME …] [--rounds N]`: run all benchmarks, or those named. The exit status is 1 when a limit is
exceeded.
"""

import argparse
import sys

from bench import deploy, gate, page, provision, rekey, scale, status, trace

BENCHMARKS = {
    "deploy": deploy.main,
    "gate": gate.main,
    "page": page.main,
    "provision": provision.main,
    "rekey": rekey.main,
    "scale": scale.main,
    "status": status.main,
    "trace": trace.main,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark {unknown[0]}; known benchmarks: {', '.join(BENCHMARKS)}")
    return max(BENCHMARKS[name](options.rounds) for name in options.names or BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main())
