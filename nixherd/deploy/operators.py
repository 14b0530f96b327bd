"""Who deploys."""

import getpass
import os
import re


def operator() -> str:
    """Whoever runs this, as the machines and other operators are told."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container nobody may have a name
        user = f"uid-{os.getuid()}"
    return re.sub(r"[^A-Za-z0-9@._-]", "-", f"{user}@{os.uname().nodename}-{os.getpid()}")
