"""The minimum that a provisioning needs: the baseline for what nixherd adds.

Run inside the lab, after building what is installed: `python -m bench.bare HOST VMID USER`. It sends the same API
requests and runs the same programs in the same order, polls as often as it can, decides and verifies nothing and cannot
be run again. Prints the seconds of each part.
"""

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.parse
from pathlib import Path
from typing import IO, Any

TIGHT = 0.01  # seconds between two polls
NIX = ("nix", "--extra-experimental-features", "nix-command flakes")


class Api:
    """The lab's API through the standard library; every answer but 200 is None."""

    def __init__(self) -> None:
        context = ssl._create_unverified_context()
        self._connection = http.client.HTTPSConnection("10.77.0.1", 8006, context=context)
        token = tomllib.loads(Path(os.environ["PROXMOX_TOKEN_FILE"]).read_text())["token"]
        self._headers = {"Authorization": f"PVEAPIToken={token}", "Content-Type": "application/x-www-form-urlencoded"}

    def __call__(self, method: str, path: str, **parameters: object) -> Any:
        body = urllib.parse.urlencode(parameters, doseq=True) if parameters else None
        self._connection.request(method, f"/api2/json/nodes/prom/{path}", body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        return json.loads(text)["data"] if answer.status == 200 else None

    def task(self, method: str, path: str, **parameters: object) -> None:
        upid = self(method, path, **parameters)
        while (status := self("GET", f"tasks/{upid}/status"))["status"] == "running":
            time.sleep(TIGHT)
        assert status["exitstatus"] == "OK", status


class Bare:
    def __init__(self, host: str, vmid: str, user: str) -> None:
        self.host, self.vm, self.user, self.api = host, f"qemu/{vmid}", user, Api()
        self.vmid = vmid
        self.known_hosts = Path(os.environ["HOME"]) / f"bare-{host}"
        flake = f"{os.environ['FLEET']}#nixosConfigurations.{host}.config.system.build"
        installer = f"{os.environ['FLEET']}#packages.x86_64-linux.kexec-installer"
        paths = self.local(
            *NIX, "build", "--no-link", "--print-out-paths", f"{flake}.toplevel", f"{flake}.diskoScript", installer
        )
        self.toplevel, self.disko, self.installer = paths.split()

    def local(self, *argv: str, input: str | None = None, stdin: IO[bytes] | None = None, **env: str) -> str:
        done = subprocess.run(
            argv,
            input=input,
            stdin=stdin,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        return done.stdout

    def agent(self, path: str) -> Any:
        while (answer := self.api("GET", f"{self.vm}/agent/{path}")) is None:
            time.sleep(TIGHT)
        return answer

    def find(self, system: str, user: str, key: str | None = None) -> None:
        """Wait until that system answers; pin its key and open one connection for all further commands."""
        release = f"{self.vm}/agent/file-read?file=/etc/os-release"
        while not re.search(system, (self.api("GET", release) or {}).get("content", ""), re.DOTALL):
            time.sleep(TIGHT)
        if key is None:
            pid = self.api("POST", f"{self.vm}/agent/exec", command=["cloud-init", "status", "--wait"])["pid"]
            while not self.agent(f"exec-status?pid={pid}")["exited"]:
                time.sleep(TIGHT)
            key = self.agent("file-read?file=/etc/ssh/ssh_host_ed25519_key.pub")["content"]
        while not (address := self.address()):
            time.sleep(TIGHT)
        self.known_hosts.write_text(f"{address} {key}")
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={self.known_hosts}"]
        options += [
            "ControlMaster=auto",
            f"ControlPath={self.known_hosts}-%h-%r.{time.monotonic_ns()}",
            "ControlPersist=5",
        ]
        self.ssh = [part for option in options for part in ("-o", option)]
        self.target, self.key = f"{user}@{address}", key
        while subprocess.run(["ssh", *self.ssh, self.target, "true"], capture_output=True).returncode:
            time.sleep(TIGHT)

    def address(self) -> str | None:
        cards = (self.api("GET", f"{self.vm}/agent/network-get-interfaces") or {"result": []})["result"]
        addresses = [item["ip-address"] for card in cards for item in card.get("ip-addresses", [])]
        return next((text for text in addresses if text.startswith("10.77.0.")), None)

    def remote(self, script: str, input: str | None = None, stdin: IO[bytes] | None = None) -> None:
        self.local("ssh", *self.ssh, self.target, script, input=input, stdin=stdin)

    def copy(self, path: str, store: str = "") -> None:
        self.local(
            *NIX, "copy", "--no-check-sigs", "--to", f"ssh://{self.target}{store}", path, NIX_SSHOPTS=" ".join(self.ssh)
        )

    # the parts, in the order of nixherd's rows

    def clone(self) -> None:
        self.api.task("POST", "qemu/9002/clone", newid=self.vmid, name=self.host, full=1, storage="nvmeprom")

    def configure(self) -> None:
        self.api("PUT", f"{self.vm}/config", cores=4, memory=8192)
        self.api.task("PUT", f"{self.vm}/resize", disk="scsi0", size="64G")
        keys = urllib.parse.quote((Path(os.environ["HOME"]) / ".ssh/id_ed25519.pub").read_text(), safe="")
        self.api("PUT", f"{self.vm}/config", ciuser=self.user, sshkeys=keys, ipconfig0="ip=dhcp")

    def start(self) -> None:
        self.api.task("POST", f"{self.vm}/status/start")
        self.find("ID=debian", self.user)

    def jump(self) -> None:
        [tarball] = Path(self.installer).glob("*.tar.gz")
        with tarball.open("rb") as source:
            self.remote("sudo tar -C /root -xzf -", stdin=source)
        self.remote("sudo /root/kexec/run")
        self.find("VARIANT_ID=installer", "root", self.key)

    def format(self) -> None:
        self.copy(self.disko)
        self.remote(f"{self.disko} >/dev/null 2>&1")

    def install(self) -> None:
        self.copy(self.toplevel, "?remote-store=local?root=/mnt")
        key = self.known_hosts.with_name(f"bare-key-{time.monotonic_ns()}")
        self.local("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        self.remote("mkdir -p /mnt/etc/ssh; umask 077; cat >/mnt/etc/ssh/ssh_host_ed25519_key", input=key.read_text())
        self.host_key = key.with_suffix(".pub").read_text()
        self.remote(f"nixos-install --no-root-passwd --no-channel-copy --system {self.toplevel} --root /mnt >/dev/null")

    def reboot(self) -> None:
        self.remote("umount -R /mnt; (sleep 0.1; systemctl reboot) >/dev/null 2>&1 </dev/null &")
        self.find("^(?!.*installer).*ID=nixos", self.user, self.host_key)

    def all(self) -> dict[str, float]:
        seconds = {}
        for part in (self.clone, self.configure, self.start, self.jump, self.format, self.install, self.reboot):
            began = time.monotonic()
            part()
            seconds[part.__name__] = time.monotonic() - began
        return seconds


if __name__ == "__main__":
    print(json.dumps(Bare(*sys.argv[1:]).all()))
