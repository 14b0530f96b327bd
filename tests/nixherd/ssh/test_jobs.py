"""Jobs are run for real here, by sh; systemd's part is seen in the lab."""

import subprocess
from pathlib import Path

from nixherd.ssh import login_shell
from nixherd.ssh.login_shell import Job


def ran(job: Job, directory: Path) -> str:
    """Run the body of a job with its directory moved, and return what NAME.done holds."""
    subprocess.run(["sh"], input=job.body.replace(login_shell.JOBS, str(directory)), text=True, check=True, timeout=10)
    return (directory / f"{job.name}.done").read_text()


def test_a_good_end_is_noted_with_its_key(tmp_path: Path) -> None:
    job = Job("disko", "/nix/store/it's a key", "echo formatted; test -n yes", deadline=5)
    assert ran(job, tmp_path) == job.well
    assert (tmp_path / "disko.log").read_text() == "formatted\n"


def test_the_first_failing_command_ends_the_job(tmp_path: Path) -> None:
    job = Job("disko", "key", f"false\ntouch {tmp_path}/wiped", deadline=5)
    assert ran(job, tmp_path) == "key 1" != job.well
    assert not (tmp_path / "wiped").exists()


def test_a_script_that_reads_stdin_finds_it_empty(tmp_path: Path) -> None:
    job = Job("install", "key", "cat\necho done", deadline=5)
    assert ran(job, tmp_path) == job.well
    assert (tmp_path / "install.log").read_text() == "done\n"


def test_the_note_of_an_earlier_end_is_gone_while_the_job_runs(tmp_path: Path) -> None:
    (tmp_path / "disko.done").write_text("other 0")
    job = Job("disko", "key", f"test ! -e {tmp_path}/disko.done", deadline=5)
    assert ran(job, tmp_path) == job.well
