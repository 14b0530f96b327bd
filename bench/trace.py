"""Traces one host's enrolment, provisioning and deployment through our code: `make bench ONLY=trace`.

Each is run once by pyinfra in a separate lab, recorded by `bench.trace_child`. It prints the number of our files in
which a function is called, and for each point of effect the number of our frames on the stack and whether a file is
entered again after it was left. A point of effect is a place in our code with its callers: a loop that polls counts
once. API requests are counted separately, because the guard's own frames are on their stacks. The exit status is 1 when
a bound is exceeded. The traces are in .bench/trace-NAME.jsonl, the stacks in the .txt beside it.

At e8e5084 this counts the 54, 67 and 48 files of issue 16 (the deployment being a light host's), and in the deployment
a median of 10 frames and 13 points, 10 of which enter a file twice; the issue has 11 of 15.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bench.results import DIRECTORY

VM, LIGHT = "dev", "light001"
FRAMES = 6
# The VM's deployment looks it up at the hypervisor as well; the bound on files is the light host's.
FILES = {"enroll": 42, "provision": 50, "deploy": 36, "deploy-vm": None}

Stack = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Effect:
    """`stack` are our frames, (file, function), from the outside in; `row` is the operation that executes, or None."""

    kind: str
    what: str
    row: str | None
    stack: Stack

    @property
    def frames(self) -> int:
        """The number of our frames up to the function that sends; one private helper of it is not counted."""
        name = self.stack[-1][1].rpartition(".")[2] if self.stack else ""
        return len(self.stack) - name.startswith(("_", "<lambda"))

    @property
    def entered_again(self) -> list[str]:
        """The files that the stack enters, leaves and enters again."""
        entered = [name for name, _ in groupby(name for name, _ in self.stack)]
        return sorted({name for name in entered if entered.count(name) > 1})


@dataclass(frozen=True)
class Trace:
    files: tuple[str, ...]
    effects: tuple[Effect, ...]

    def points(self, *, requests: bool) -> list[Effect]:
        """Return the requests, or all other effects, each stack once."""
        chosen = [each for each in self.effects if each.stack and (each.kind == "request") == requests]
        return list({each.stack: each for each in reversed(chosen)}.values())[::-1]


def read(lines: Iterable[str]) -> Trace:
    files, effects = [], []
    for line in lines:
        value = json.loads(line)
        if "file" in value:
            files.append(value["file"])
        else:
            stack = tuple((file, function) for file, function in value["stack"])
            effects.append(Effect(value["effect"], value["what"], value["row"], stack))
    return Trace(tuple(sorted(files)), tuple(effects))


def lab(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lab", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lab {' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def traced(name: str, deploy_file: str, host: str) -> Trace:
    output = DIRECTORY / f"trace-{name}.jsonl"
    output.unlink(missing_ok=True)
    words = ["-y", "inventory.py", f"deploys/{deploy_file}", "--limit", host]
    lab("run", "--", sys.executable, "-m", "bench.trace_child", str(output.absolute()), *words)
    trace = read(output.read_text().splitlines())
    if not (trace.files and trace.points(requests=False)):
        sys.exit(f"trace: {name}: recorded no call of our functions; see {output}")
    return trace


def report(name: str, trace: Trace) -> bool:
    """Print the figures and write the stacks; return whether all are within their bounds."""
    points, requests = trace.points(requests=False), trace.points(requests=True)
    stacks = [described(effect) for effect in (*points, *requests)]
    (DIRECTORY / f"trace-{name}.txt").write_text("\n\n".join(["\n".join(trace.files), *stacks]) + "\n")
    most = FILES[name]
    bound = "" if most is None else f" (at most {most})"
    print(f"trace-{name}: {len(trace.files)} files of ours{bound}")
    again = [sum(bool(effect.entered_again) for effect in each) for each in (points, requests)]
    print(f"  {len(points)} points of effect, {again[0]} of them enter a file twice (at most 0); {spread(points)}")
    print(
        f"  {len(requests)} places of a request, {again[1]} of them enter a file twice (at most 0); {spread(requests)}"
    )
    sys.stdout.flush()
    short = statistics.median(effect.frames for effect in points) <= FRAMES
    return short and not any(again) and (most is None or len(trace.files) <= most)


def spread(effects: Sequence[Effect]) -> str:
    if not effects:
        return "no frames"
    frames = [effect.frames for effect in effects]
    bound = "" if effects[0].kind == "request" else f" (at most {FRAMES})"
    return f"our frames: median {statistics.median(frames):g}{bound}, {min(frames)} to {max(frames)}"


def described(effect: Effect) -> str:
    lines = [f"{effect.row}: {effect.kind}: {effect.what}"]
    lines += [f"  {file}: {function}" for file, function in effect.stack]
    lines += [f"  enters {name} twice" for name in effect.entered_again]
    return "\n".join(lines)


def change(fleet: Path, directory: str) -> None:
    """Change something in each host of a directory, to be deployed."""
    configuration = fleet / "hosts" / directory / "configuration.nix"
    text = configuration.read_text()
    mark = "  system.stateVersion"
    assert mark in text, configuration
    configuration.write_text(text.replace(mark, f'  environment.etc.traced.text = "traced";\n{mark}', 1))
    lab("run", "--", "git", "-C", str(fleet), "commit", "--quiet", "--no-verify", "--all", "--message", "traced")


def main(rounds: int) -> int:
    """Trace once, whatever the number of rounds: nothing is timed."""
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nixherd-trace-") as state:
        os.environ["NIXHERD_LAB"] = state
        fleet = Path(state) / "fleet"
        lab("up")
        try:
            traces = {name: traced(name, f"{name}.py", VM) for name in ("enroll", "provision")}
            change(fleet, VM)
            traces["deploy-vm"] = traced("deploy-vm", "deploy.py", VM)
            lab("fleet", "1", "--light")
            change(fleet, "light")
            traces["deploy"] = traced("deploy", "deploy.py", LIGHT)
        finally:
            lab("down")
    good = [report(name, trace) for name, trace in traces.items()]
    return 0 if all(good) else 1
