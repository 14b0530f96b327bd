"""The programs of the quality gate for tests: alejandra and deadnix as lab/setup builds them, a stand-in for statix.

statix is in no registry. The stand-in has its command line, its output and its statuses (config.rs, lint.rs and
traits.rs of statix), finds a comparison with `true` and an empty `let`, and panics where a file says that it should.
It is started for each file of a fleet, and imports what it needs for those alone in which there may be something.
"""

import functools
import os
import sys
from pathlib import Path

import pytest

from lab.places import cache_directory
from lab.setup import gate

STATIX = """\
#!PYTHON -IS
import os, sys

words = sys.argv[1:]
command, target = words[0], words[-1]
form = words[words.index("--format") + 1] if "--format" in words else "stderr"
if os.environ.get("STATIX_WITHOUT_JSON") and form == "json":
    sys.exit("error: Invalid value for '--format <FORMAT>': statix was not compiled with the `json` feature flag")
files = [target] if os.path.isfile(target) else []
for parent, directories, names in os.walk(target):
    directories[:] = sorted(name for name in directories if name != ".git")
    files += [os.path.join(parent, name) for name in sorted(names) if name.endswith(".nix")]
found = False
for file in files:
    text = open(file).read()
    if "# statix panics" in text:
        sys.stderr.write("thread 'main' panicked at lib/src/lints/x.rs:1:1:\\nindex out of bounds\\n")
        os._exit(101)
    if command == "fix":
        new = text.replace(" == true", "")
        if new != text:
            open(file, "w").write(new)
        continue
    reports = []
    if " == true" not in text and "(let" not in text:
        continue
    import json, re
    for code, note, pattern, message in (
        (1, "Unnecessary comparison with boolean", r"\\w+ == true", "Comparing `{}` with boolean literal `true`"),
        (2, "Useless let-in expression", r"\\(let\\s+in\\b", "This let-in expression has no entries"),
    ):
        for match in re.finditer(pattern, text):
            line = text.count("\\n", 0, match.start()) + 1
            at = {"line": line, "column": match.start() - text.rfind("\\n", 0, match.start())}
            message = message.format(match.group().split()[0])
            diagnostic = {"at": {"from": at, "to": at}, "message": message, "suggestion": None}
            reports.append({"note": note, "code": code, "severity": "Warn", "diagnostics": [diagnostic]})
    if not reports:
        continue
    found = True
    if form == "json":
        print(json.dumps({"file": file, "report": reports}, indent=2))
    else:
        for report in reports:
            for each in report["diagnostics"]:
                at = each["at"]["from"]
                print(f"{file}>{at['line']}:{at['column']}:W:{report['code']}:{each['message']}")
sys.exit(1 if found and command == "check" else 0)
"""


@functools.cache
def programs() -> Path:
    """The directory with alejandra and deadnix; skips where there is no Rust to build them with."""
    try:
        return gate.build(cache_directory())
    except gate.CargoMissing as missing:
        pytest.skip(str(missing))


def stand_in(directory: Path) -> Path:
    """A directory with a statix in it."""
    directory.mkdir(exist_ok=True)
    write(directory / "statix", STATIX.replace("PYTHON", str(Path(sys.executable).resolve())))
    return directory


def write(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def path(*directories: Path, rest: str | None = None) -> str:
    return os.pathsep.join([*map(str, directories), os.environ["PATH"] if rest is None else rest])
