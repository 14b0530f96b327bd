"""The line that says why, among what real programs printed when they failed."""

import pytest

from nixherd.errors import FleetError, ProcessFailed
from nixherd.reasons import failure, kept_output, reason, rest, went_back

# What was printed, and the line that says why: recorded, with other names in it.
RECORDED = {
    "nix copy, unsigned": (
        "copying 2 paths...\ncopying path '/nix/store/x' to 'ssh://web01'...\n"
        "error: cannot add path '/nix/store/x' because it lacks a signature by a trusted key\n"
        "error: unexpected end-of-file\n",
        "cannot add path '/nix/store/x' because it lacks a signature by a trusted key",
    ),
    "nix copy, a shell that prints": (
        "error: 'nix-store --serve' protocol mismatch from 'web01', got 'Welcome to web01'\n",
        "'nix-store --serve' protocol mismatch from 'web01', got 'Welcome to web01'",
    ),
    "nix copy by ssh-ng, a shell that prints": (
        "error: cannot open connection to remote store 'ssh-ng://': error: protocol mismatch, got 'Welcome to web01'\n",
        "cannot open connection to remote store 'ssh-ng://': error: protocol mismatch, got 'Welcome to web01'",
    ),
    "nix copy, no such host": (
        "ssh: Could not resolve hostname web01: Name or service not known\r\n"
        "error: failed to start SSH connection to 'web01'\n",
        "ssh: Could not resolve hostname web01: Name or service not known",
    ),
    "nix copy, another key": (
        "@@@@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@@@@@@\r\n"
        "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\nHost key verification failed.\r\n"
        "error: failed to start SSH connection to 'web01'\n",
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
    ),
    "nix copy, no room": (
        "copying 1 paths...\nerror: writing to file: No space left on device\nerror: unexpected end-of-file\n",
        "writing to file: No space left on device",
    ),
    "nix copy, a cache that is down": (
        "warning: error: unable to download 'http://c/nix-cache-info': Could not connect; retrying in 321 ms\n"
        "error: unable to download 'http://c/nix-cache-info': Could not connect (7)\n",
        "unable to download 'http://c/nix-cache-info': Could not connect (7)",
    ),
    "nix build": (
        "this derivation will be built:\n  /nix/store/x.drv\nbuilding '/nix/store/x.drv'...\n"
        "error: builder for '/nix/store/x.drv' failed with exit code 3;\n       last 2 log lines:\n       > one\n"
        "       > boom\n       For full logs, run:\n         nix log /nix/store/x.drv\n",
        "builder for '/nix/store/x.drv' failed with exit code 3; the builder said: one / boom",
    ),
    "nix build, as JSON": (
        '@nix {"action":"msg","level":3,"msg":"building"}\n'
        '@nix {"action":"msg","level":0,"msg":"\\u001b[31;1merror:\\u001b[0m path \'/nix/store/x\' is required, '
        'but there is no substituter that can build it"}\n',
        "path '/nix/store/x' is required, but there is no substituter that can build it",
    ),
    "nix build, nothing to fetch": (
        "don't know how to build these paths:\n  /nix/store/x\n"
        "error: path '/nix/store/x' is required, but there is no substituter that can build it\n",
        "path '/nix/store/x' is required, but there is no substituter that can build it",
    ),
    "nix-env": (
        "error: creating symlink '/proc/x-1-link.tmp' -> '/nix/store/x': No such file or directory\n",
        "creating symlink '/proc/x-1-link.tmp' -> '/nix/store/x': No such file or directory",
    ),
    "home-manager": (
        "Starting Home Manager activation\nActivating checkFilesChanged\nActivating checkLinkTargets\n"
        "Existing file '/home/me/.bashrc' would be clobbered\n"
        "Please do one of the following:\n- Move or remove the above files and try again.\n"
        "- When used as a module, set home-manager.backupFileExtension\n",
        "Existing file '/home/me/.bashrc' would be clobbered",
    ),
    "switch-to-configuration": (
        "activating the configuration...\nsetting up /etc...\nreloading user units for me...\n"
        "Job for web.service failed because the control process exited with error code.\n"
        'See "systemctl status web.service" and "journalctl -xeu web.service" for details.\n'
        "warning: the following units failed: web.service\n"
        "× web.service - the site\n     Loaded: loaded\n     Active: failed\n"
        "warning: error(s) occurred while switching to the new configuration\n",
        "the following units failed: web.service",
    ),
    "an activation script": (
        "activating the configuration...\nchown: invalid user: 'nobody2'\n"
        "Activation script snippet 'var' failed (1)\nFailed to run activate script\n",
        "Activation script snippet 'var' failed (1)",
    ),
    "systemd-run": (
        "Failed to start transient service unit: Unit x.service was already loaded or has a fragment file.\n",
        "Failed to start transient service unit: Unit x.service was already loaded or has a fragment file.",
    ),
    "sudo": (
        "sudo: a terminal is required to read the password; either use the -S option\nsudo: a password is required\n",
        "sudo: a terminal is required to read the password; either use the -S option",
    ),
    "disko": (
        "umount: /mnt: not mounted.\n+ sgdisk --align-end /dev/sdz\nProblem opening /dev/sdz for reading! Error is 2.\n"
        "The specified file does not exist!\n",
        "Problem opening /dev/sdz for reading! Error is 2.",
    ),
    "mount": (
        "mount: /mnt: special device /dev/nosuch does not exist.\n"
        "       dmesg(1) may have more information after failed mount system call.\n",
        "mount: /mnt: special device /dev/nosuch does not exist.",
    ),
    "nixos-install": (
        "copying path '/nix/store/x' to 'local'...\nerror: writing to file: No space left on device\n"
        "installing the boot loader...\n",
        "writing to file: No space left on device",
    ),
    "kexec": ("kexec_load failed: Operation not permitted\n", "kexec_load failed: Operation not permitted"),
    "tar": (
        "tar: /nosuch.tar: Cannot open: No such file or directory\ntar: Error is not recoverable: exiting now\n",
        "tar: /nosuch.tar: Cannot open: No such file or directory",
    ),
    "ssh": (
        "Warning: Permanently added 'web01' to the list of known hosts.\r\n"
        "root@web01: Permission denied (publickey).\r\n",
        "root@web01: Permission denied (publickey).",
    ),
    "git push": (
        "error: src refspec main does not match any\nerror: failed to push some refs to 'origin'\n",
        "src refspec main does not match any",
    ),
    "git push, refused": (
        "remote: error: GH006: Protected branch update failed\nTo github.com:me/fleet\n"
        " ! [remote rejected] main -> main (protected branch hook declined)\nerror: failed to push some refs\n",
        "remote: error: GH006: Protected branch update failed",
    ),
    "git commit": (
        'Author identity unknown\n\n*** Please tell me who you are.\n\nRun\n\n  git config user.email "you"\n\n'
        "fatal: unable to auto-detect email address (got 'root@vm.(none)')\n",
        "unable to auto-detect email address (got 'root@vm.(none)')",
    ),
    "sops": (
        "Failed to get the data key required to decrypt the SOPS file.\n\nGroup 0: FAILED\n  age1x: FAILED\n"
        "    - | no identity matched any of the recipients\n\nRecovery failed because no master key could decrypt\n"
        "order for SOPS to recover the file, at least one key has to be successful,\nbut none were.\n",
        "- | no identity matched any of the recipients",
    ),
    "age": (
        "age: error: no identity matched any of the recipients\n"
        "age: report unexpected or unhelpful errors at https://filippo.io/age/report\n",
        "age: error: no identity matched any of the recipients",
    ),
    "curl": (
        "curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server\n",
        "curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server",
    ),
    "what nobody knows": ("starting\nit went wrong\n", "it went wrong"),
    "what announces": ("checking\nerror: these are missing:\nweb01\nweb02\n", "these are missing: web01 web02"),
    "a hostile one": ("fatal: \x1b[2Jgo\u202e away\x07\n", "go\\u202e away\\x07"),
    "nothing": ("\n", "no answer"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_line_that_says_why_is_chosen(name: str) -> None:
    output, why = RECORDED[name]
    assert reason(output) == why
    assert reason(output.splitlines()) == why


def test_the_rest_is_kept_with_the_error() -> None:
    output = RECORDED["nix copy, unsigned"][0]
    error = failure("web01: copying failed", output)
    assert str(error).startswith("web01: copying failed: cannot add path")
    assert kept_output(error) == rest(output) == [line.strip() for line in output.splitlines()]
    outer = FleetError("web01: more is known")
    outer.__cause__ = ProcessFailed("nix copy", 1, output)
    assert kept_output(outer) == rest(output)
    assert kept_output(FleetError("nothing was run")) == []


def test_an_error_that_is_its_own_cause_ends_the_search() -> None:
    """`raise worded(error, …) from error` raises the same error from itself, where it is in words already."""
    error = FleetError("not visible")
    error.__cause__ = error
    assert kept_output(error) == []


def test_where_a_deployment_went_back_to_is_said_or_that_there_was_nothing() -> None:
    log = RECORDED["home-manager"][0].splitlines()
    ended = "the activation ended with status 1"
    clobbered = f"{ended} (Existing file '/home/me/.bashrc' would be clobbered)"
    assert went_back(ended, "/nix/store/old", log) == f"{clobbered}; it went back to /nix/store/old"
    assert went_back(ended, None, log).startswith(f"{clobbered}; there was no generation before it to go back to")
    assert went_back("units failed: a.service", "/nix/store/old", []) == (
        "units failed: a.service; it went back to /nix/store/old"
    )
