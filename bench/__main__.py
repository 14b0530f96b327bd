"""`python -m bench [NAME …] [--rounds N]`: all benchmarks, or those that are named. Ends with 1 beyond a limit."""

import argparse
import sys

from bench import deploy, gate, provision, rekey, scale, trace

BENCHMARKS = {
    "deploy": deploy.main,
    "gate": gate.main,
    "provision": provision.main,
    "rekey": rekey.main,
    "scale": scale.main,
    "trace": trace.main,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; all of them without any")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    return max(BENCHMARKS[name](options.rounds) for name in options.names or BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main())
