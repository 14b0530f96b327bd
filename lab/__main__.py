"""Run `python -m lab COMMAND`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["api"]:  # the emulator alone does not import the machines
        from lab.api.server import main as api

        api(sys.argv[2:])
    else:
        from lab.cli import main

        sys.exit(main(sys.argv[1:]))
