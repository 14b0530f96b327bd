"""`make bench ONLY=trace`: what is seen of code at work, and what is counted of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.trace
from bench.trace import Effect, Trace, read, report

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
FILES = {
    "operations/host.py": "from herd import engine\ndef deploy():\n    engine.start()\n",
    "herd/engine.py": "from herd import program, ways\nclass Way:\n    def go(self):\n        program.run()\n"
    "def start():\n    ways.choose(Way())\n",
    "herd/ways.py": "def choose(way):\n    way.go()\n",
    "herd/program.py": "import os, subprocess\nfrom herd import imported_only\ndef run():\n"
    "    for _ in range(2):\n        _start()\ndef _start():\n    subprocess.run(['true'])\n"
    "def write():\n    os.rename('fleet/new', 'fleet/hosts.nix')\ndef refused():\n    raise ValueError\n",
    "herd/imported_only.py": "class Kept:\n    value = 1\n",
    "lab/local.py": "import subprocess\ndef work():\n    subprocess.run(['true'])\n",
}
CHILD = """
import sys
from pathlib import Path
from bench.trace_child import Recorder
sys.path.insert(0, str(Path.cwd()))
Recorder(Path(sys.argv[1]), Path.cwd(), Path("fleet")).start()
{work}
"""


Watch = Callable[[str], Trace]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """Runs lines of Python in a small tree, recorded."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/new").touch()

    def run(work: str) -> Trace:
        output = tmp_path / "trace.jsonl"
        argv = [sys.executable, "-c", CHILD.format(work=work), str(output)]
        subprocess.run(argv, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        return read(output.read_text().splitlines())

    return run


DEPLOYED = (
    ("operations/host.py", "deploy"),
    ("herd/engine.py", "start"),
    ("herd/ways.py", "choose"),
    ("herd/engine.py", "Way.go"),
    ("herd/program.py", "run"),
    ("herd/program.py", "_start"),
)


def test_a_program_is_seen_with_the_frames_that_are_ours(watch: Watch) -> None:
    trace = watch("from operations.host import deploy; deploy()")
    assert trace.effects == (Effect("program", "true", None, DEPLOYED),) * 2
    (point,) = trace.points(requests=False)
    assert point.entered_again == ["herd/engine.py"]
    assert point.frames == 5
    # a file that is only imported is not counted
    assert trace.files == ("herd/engine.py", "herd/program.py", "herd/ways.py", "operations/host.py")


@pytest.mark.parametrize(
    "work",
    [
        "import gevent; from operations import host; gevent.spawn(host.deploy).get()",
        "import threading; from operations.host import deploy; "
        "thread = threading.Thread(target=deploy); thread.start(); thread.join()",
    ],
    ids=["greenlet", "thread"],
)
def test_functions_in_greenlets_and_threads_are_seen(watch: Watch, work: str) -> None:
    trace = watch(work)
    assert "herd/ways.py" in trace.files
    assert trace.points(requests=False)[0].stack == DEPLOYED


def test_the_lab_and_the_benches_are_not_ours(watch: Watch) -> None:
    trace = watch("from lab import local; local.work()")
    assert trace.files == ()
    assert [effect.stack for effect in trace.effects] == [()]
    assert trace.points(requests=False) == []


def test_writes_of_the_fleets_files_and_no_others_are_effects(watch: Watch) -> None:
    trace = watch(
        "from herd import program; program.write(); open('other', 'w').close(); open('fleet/hosts.nix').close(); "
        "open('fleet/a', 'w').close()"
    )
    assert [(effect.kind, effect.what) for effect in trace.effects] == [("write", "hosts.nix"), ("write", "a")]
    assert trace.effects[0].stack == (("herd/program.py", "write"),)


def test_requests_are_effects_though_nobody_answers(watch: Watch) -> None:
    trace = watch(
        "import requests, contextlib\nwith contextlib.suppress(requests.ConnectionError):\n"
        "    requests.get('http://127.0.0.1:9/x')"
    )
    assert [(effect.kind, effect.what) for effect in trace.effects] == [("request", "GET http://127.0.0.1:9/x")]


def test_what_cannot_be_watched_any_more_is_named(tmp_path: Path) -> None:
    child = "import paramiko.channel; del paramiko.channel.Channel.exec_command\n" + CHILD.format(work="")
    argv = [sys.executable, "-c", child, str(tmp_path / "trace.jsonl")]
    done = subprocess.run(
        argv, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "trace: paramiko.channel.Channel.exec_command is gone; say in bench/trace_child.py what to watch instead\n"
    )


@pytest.mark.parametrize(
    ("files", "entered_again"),
    [
        ("", []),
        ("a", []),
        ("aaa", []),
        ("abc", []),
        ("aba", ["a"]),
        ("aabbaab", ["a", "b"]),
    ],
)
def test_a_file_is_entered_again_when_it_was_left(files: str, entered_again: list[str]) -> None:
    assert Effect("program", "x", None, tuple((name, "f") for name in files)).entered_again == entered_again


def trace_of(*stacks: str, kind: str = "command", files: int = 36) -> Trace:
    effects = tuple(Effect(kind, "x", "row", tuple((name, "f") for name in stack)) for stack in stacks)
    return Trace(tuple(map(str, range(files))), effects)


@pytest.mark.parametrize(
    ("seen", "is_good"),
    [
        (trace_of("abc", "abcdef", "abcdefghi"), True),
        (trace_of("abc", files=37), False),
        (trace_of("aba"), False),
        (trace_of("abcdefg"), False),
        (Trace((), trace_of("abc").effects + trace_of("abcdefghi", kind="request").effects), True),
        (Trace((), trace_of("abc").effects + trace_of("aba", kind="request").effects), False),
    ],
    ids=["within", "files", "entered twice", "frames", "long request", "request enters twice"],
)
def test_the_bounds(seen: Trace, is_good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.trace, "DIRECTORY", tmp_path)
    assert report("deploy", seen) is is_good
    assert (tmp_path / "trace-deploy.txt").exists()


def test_the_report_counts_a_place_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.trace, "DIRECTORY", tmp_path)
    report("deploy", trace_of("aba", "aba", "ab"))
    assert capsys.readouterr().out == (
        "trace-deploy: 36 files of ours (at most 36)\n"
        "  2 points of effect, 1 of them enter a file twice (at most 0); our frames: median 2.5 (at most 6), 2 to 3\n"
        "  0 places of a request, 0 of them enter a file twice (at most 0); no frames\n"
    )
