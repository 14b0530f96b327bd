"""The program of the scheduled update: the real one, with a pull, a PID 1 and a kernel that are made here."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

UPDATE = Path(__file__).parent.parent.parent / "fleet/modules/nixos/homelab/update/update.sh"
OLD, NEW = "aaaa-linux-6.12.63", "bbbb-linux-6.18.1"


@dataclass
class Machine:
    """A machine's file system in a directory, and programs that have an answer for each time that they are asked."""

    root: Path

    def __post_init__(self) -> None:
        for directory in ("bin", "said", "proc/sys/kernel/random", "run", "nix/var/nix/profiles"):
            (self.root / directory).mkdir(parents=True)
        self.program("pull")
        self.program("gates")
        self.program("systemctl")
        self.program("sleep")
        self.program("systemd-inhibit")
        (self.root / "bin/systemd-inhibit").write_text(
            f'#!/bin/sh\necho systemd-inhibit "$@" >>{self.root}/calls\n'
            'while case $1 in --) false ;; --*) ;; *) false ;; esac; do shift; done; [ "$1" != -- ] || shift\n"$@"\n'
        )
        self.program("machine.sh")
        self.boots("first", OLD)
        self.keeps(OLD)

    def program(self, name: str, *answers: str) -> None:
        """A program that says and ends so: `STATUS TEXT` each time that it is run, the last one again and again."""
        (self.root / "said" / name).write_text("".join(f"{answer}\n" for answer in answers or ("0 ",)))
        file = self.root / "bin" / name
        file.write_text(
            f"""#!/bin/sh
            echo {name} "$@" >>{self.root}/calls
            answers={self.root}/said/{name}
            read -r status text <$answers
            [ "$(wc -l <$answers)" = 1 ] || sed -i 1d $answers
            [ -z "$text" ] || echo "$text"
            exit $status
            """
        )
        file.chmod(0o755)

    def system(self, name: str, kernel: str) -> Path:
        store = self.root / "nix/store"
        (store / kernel / "lib/modules").mkdir(parents=True, exist_ok=True)
        (store / kernel / "bzImage").touch()
        system = store / f"system-{name}-{kernel}"
        system.mkdir(exist_ok=True)
        for link, to in (("kernel", "bzImage"), ("kernel-modules", "lib")):
            (system / link).unlink(missing_ok=True)
            (system / link).symlink_to(store / kernel / to)
        return system

    def boots(self, boot_id: str, kernel: str) -> None:
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{boot_id}\n")
        booted = self.root / "run/booted-system"
        booted.unlink(missing_ok=True)
        booted.symlink_to(self.system("booted", kernel))

    def keeps(self, kernel: str) -> None:
        profile = self.root / "nix/var/nix/profiles/system"
        profile.unlink(missing_ok=True)
        profile.symlink_to(self.system("kept", kernel))

    @property
    def command(self) -> list[str]:
        bin = self.root / "bin"
        return ["/bin/sh", str(UPDATE), str(self.root), str(bin / "pull"), str(bin / "machine.sh")]

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.root}/bin:/usr/bin:/bin"}

    def update(self, boot: str = "-") -> tuple[int, list[str]]:
        (self.root / "calls").unlink(missing_ok=True)
        done = subprocess.run(
            [*self.command, boot, str(self.root / "bin/gates"), "word", "a network"],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    def calls(self, program: str) -> list[str]:
        lines = (self.root / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] == program]

    @property
    def waits(self) -> Path:
        return self.root / "var/lib/nixherd/update/waits"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_whose_gates_are_open_pulls_once_and_does_not_sleep_meanwhile(machine: Machine) -> None:
    machine.program("gates", "0 power: open: on mains (AC)")
    machine.program("pull", "0 pulled")
    assert machine.update("boot") == (0, ["power: open: on mains (AC)", "pulled"])
    assert machine.calls("gates") == ["gates word a network"]
    assert machine.calls("pull") == ["pull"]
    assert [line.split(" --why")[0] for line in machine.calls("systemd-inhibit")[1:]] == [
        "systemd-inhibit --what=sleep:idle:handle-lid-switch --who=nixherd"
    ]
    assert not machine.calls("systemctl")
    assert not machine.waits.exists()


def test_where_nothing_can_hold_sleep_off_that_is_said_and_it_goes_on(machine: Machine) -> None:
    machine.program("systemd-inhibit", "1 no logind")
    assert machine.update() == (0, ["sleep: unknown: it cannot be inhibited here"])
    assert machine.calls("pull") == ["pull"]


def test_it_waits_for_each_reason_and_says_it_once(machine: Machine) -> None:
    machine.program("gates", *["75 power: waits: on battery"] * 3, *["75 network: waits: x is metered"] * 2, "0 ")
    assert machine.update() == (0, ["power: waits: on battery", "network: waits: x is metered"])
    assert machine.calls("sleep") == ["sleep 60"] * 5
    assert machine.calls("pull") == ["pull"]
    assert not machine.waits.exists()


def test_that_it_waits_is_noted_and_outlives_it(machine: Machine) -> None:
    machine.program("gates", "75 power: unknown: nobody says")
    (machine.root / "bin/sleep").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    command = [*machine.command, "-", str(machine.root / "bin/gates")]
    with subprocess.Popen(
        command, env=machine.environment(), stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        end = time.monotonic() + 10
        while not (machine.waits.exists() and machine.waits.read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=True)
    assert machine.waits.read_text() == "power: unknown: nobody says\n"
    assert not machine.calls("pull") if (machine.root / "calls").exists() else True
    machine.program("gates")
    machine.program("sleep")
    assert machine.update() == (0, [])
    assert not machine.waits.exists()


def test_a_deployment_that_is_under_way_is_waited_for(machine: Machine) -> None:
    machine.program("pull", "75 busy", "75 busy", "0 pulled")
    assert machine.update() == (0, ["busy", "update: waits: another deployment is under way", "busy", "pulled"])


def test_the_gates_are_asked_again_after_each_wait(machine: Machine) -> None:
    machine.program("pull", "75 busy", "0 pulled")
    machine.program("gates", "0 ", "75 power: waits: on battery", "0 ")
    assert machine.update()[1][-2:] == ["power: waits: on battery", "pulled"]


def test_a_cache_that_is_out_of_reach_is_asked_five_times(machine: Machine) -> None:
    machine.program("pull", "69 no answer")
    status, _said = machine.update("boot")
    assert (status, len(machine.calls("pull")), machine.waits.exists()) == (69, 5, False)
    machine.program("pull", "69 no answer", "0 pulled")
    assert machine.update()[0] == 0


def test_what_was_refused_or_went_back_is_a_failure_and_boots_nothing(machine: Machine) -> None:
    machine.keeps(NEW)
    machine.program("pull", "1 why=own does not pass")
    assert machine.update("boot") == (1, ["why=own does not pass"])
    assert not machine.calls("systemctl")


def test_another_kernel_boots_where_it_may(machine: Machine) -> None:
    machine.keeps(NEW)
    assert machine.update("-") == (
        0,
        [f"boot: waits: a new kernel needs a reboot ({NEW}), but homelab.update.rebootOnKernelUpdate is off"],
    )
    assert not machine.calls("systemctl")
    assert machine.update("boot") == (0, [f"boot: rebooting for a new kernel ({NEW})"])
    assert machine.calls("systemctl") == ["systemctl --check-inhibitors=yes reboot"]
    machine.boots("second", NEW)
    assert machine.update("boot") == (0, [])
    assert not machine.calls("systemctl")


def test_a_kernel_that_does_not_come_is_booted_for_once(machine: Machine) -> None:
    machine.keeps(NEW)
    machine.update("boot")
    machine.boots("second", OLD)
    status, output = machine.update("boot")
    assert (status, machine.calls("systemctl")) == (1, [])
    assert "check what its boot loader starts" in output[0]
    machine.keeps("cccc-linux-6.18.2")  # which is another one
    assert machine.update("boot")[0] == 0
    assert machine.calls("systemctl")


def test_a_boot_that_something_inhibits_waits_for_the_next_time(machine: Machine) -> None:
    machine.keeps(NEW)
    machine.program("systemctl", "1 User abl030 is logged in on tty1.", "0 ")
    assert machine.update("boot") == (
        75,
        [f"boot: rebooting for a new kernel ({NEW})", "boot: waits: User abl030 is logged in on tty1."],
    )
    assert machine.update("boot")[0] == 0  # and was not booted for in between
    assert machine.calls("systemctl")


def test_no_boot_ends_a_deployment_that_somebody_has_pushed(machine: Machine) -> None:
    machine.keeps(NEW)
    machine.program("machine.sh", "0 state=proving", "0 state=keeping", "0 state=kept")
    status, output = machine.update("boot")
    assert (status, len(machine.calls("sleep"))) == (0, 2)
    assert output[0] == "boot: waits: another deployment is under way"
    assert machine.calls("machine.sh") == ["machine.sh system last"] * 3


@pytest.mark.parametrize(("boot", "status"), [("boot", 1), ("-", 0)])
def test_a_machine_that_does_not_say_its_kernel_is_not_booted(machine: Machine, boot: str, status: int) -> None:
    machine.keeps(NEW)
    (machine.root / "run/booted-system").unlink()
    assert machine.update(boot) == (status, ["boot: unknown: cannot determine which kernel this machine booted"])
    assert not machine.calls("systemctl")
