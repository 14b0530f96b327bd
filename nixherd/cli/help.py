"""`nixherd help`: every command's help with examples, groups with whole summaries, and pages about what all share."""

from collections.abc import Iterator, Mapping

import click

from nixherd.base.errors import Exit, Usage
from nixherd.base.terminal import say_text
from nixherd.cli import fact_names
from nixherd.cli.completion import offer
from nixherd.cli.front import Front, pass_front

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "build": ("build web01", "build"),
    "check": ("check", "check --changed --without statix", "check --json"),
    "completion": ("completion bash",),
    "copy": ("copy nixos", "copy web01 --dry-run"),
    "deploy": ("deploy web01 --soak 60", "deploy web --exclude web03 --max-fail 20%", "deploy --rerun-failed"),
    "drift": ("drift", "drift web --no-eval"),
    "enroll": ("enroll web01 --dry-run",),
    "eval": ("eval web01 networking.firewall.allowedTCPPorts",),
    "exec": ("exec nixos -- systemctl --failed", "exec web01 --sudo -- journalctl -n 20 -u nginx"),
    "fact": ("fact web01 --fact facts.nixos.CurrentSystem",),
    "fix": ("fix --only deploy,reboot --dry-run", "fix web01 --only apply --yes"),
    "fmt": ("fmt --check", "fmt hosts/web01"),
    "gc": ("gc nixos --older-than 30d --dry-run",),
    "generations": ("generations web01",),
    "help": ("help vm destroy", "help exit-codes"),
    "history": ("history web01", "history --since 7d --outcome failed", "history --json --limit 100"),
    "hosts": ("hosts", "hosts --groups", "hosts nixos --json"),
    "hooks install": ("hooks install",),
    "init": ("init", "init ./fleet --host web01 --device /dev/nvme0n1 --dry-run", "init --host web01 --vm --node pve"),
    "install": (
        "install web01 --address 203.0.113.7 --host-key 'ssh-ed25519 AAAA…' --user root",
        "install web01 --extra-files ./root --chown /home/me 1000:100 --no-reboot",
        "install web01 --phases reboot",
        "install web01 --disk-encryption-key /tmp/secret.key ./disk.key --dry-run",
    ),
    "lint": ("lint --fix hosts.nix",),
    "lock update": ("lock update nixpkgs --merge-into main --push",),
    "metrics": ("metrics --output /var/lib/prometheus/node-exporter/nixherd.prom", "metrics --print alerts"),
    "new": ("new web01 --cores 4 --memory 8192 --secret api_token --yes", "new laptop --no-vm --dry-run"),
    "overview": ("overview", "overview --from status.json --no-commit"),
    "page": ("page ./pages", "page --from status.json ./pages web"),
    "plan": ("plan", "plan web --dry-copy", "plan --flake github:owner/fleet#web01"),
    "post-provision": ("post-provision web01 --ip 192.0.2.10",),
    "provision": ("provision web01 --dry-run", "provision web01 web02"),
    "publish": ("publish /srv/cache --key-file cache.key",),
    "reboot": ("reboot --dry-run", "reboot web --max-fail 1"),
    "repl": ("repl web01",),
    "report": ("report", "report 42 --json"),
    "retire": ("retire web01 --keep-vm --dry-run", "retire web01 --destroy 110 --stop"),
    "rollback": ("rollback web01 --dry-run", "rollback web01 --generation 41"),
    "secrets add-host": ("secrets add-host web01 --dry-run", "secrets add-host web01 --rule 2"),
    "secrets apply": ("secrets apply --dry-run", "secrets apply --rotate"),
    "secrets edit": ("secrets edit secrets/web01.yaml",),
    "secrets init": ("secrets init --dry-run",),
    "secrets plan": ("secrets plan",),
    "secrets remove-host": ("secrets remove-host web01 --rotate",),
    "secrets status": ("secrets status --machines",),
    "serve": (
        "serve",
        "serve --listen 0.0.0.0:8484 --host-name ops.example.org --token-file token",
        "serve --socket s",
    ),
    "ssh": ("ssh web01", "ssh web01 -- journalctl -f"),
    "ssh-config": ("ssh-config > ~/.ssh/fleet.conf    # and `Include fleet.conf` in ~/.ssh/config",),
    "status": ("status", "status web --needs reboot --no-vm", "status --no-eval --json", "status --watch 30"),
    "template create": ("template create --from debian.qcow2 --dry-run",),
    "token add": ("token add --endpoint pve.example:8006 --fingerprint AB:CD:…",),
    "token show": ("token show",),
    "trust": ("trust web01", "trust router --fingerprint SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8"),
    "vm add-disk": ("vm add-disk web01 scsi1 100G --storage tank",),
    "vm adopt": ("vm adopt web01 110 --dry-run",),
    "vm apply": ("vm apply web01 --dry-run", "vm apply web01 --allow-reboot --snapshot keep"),
    "vm backup": ("vm backup web01 --newer-than 3600",),
    "vm backups": ("vm backups web01",),
    "vm clone": ("vm clone web01 --from web02",),
    "vm config": ("vm config web01",),
    "vm destroy": ("vm destroy web01 110 --stop --dry-run", "vm destroy web01 110 --stop --storage backup"),
    "vm diff": ("vm diff", "vm diff web01 --json"),
    "vm doctor": ("vm doctor --strict",),
    "vm import": ("vm import 104 --managed doc1",),
    "vm ip": ("vm ip web01",),
    "vm list": ("vm list",),
    "vm log": ("vm log --follow UPID:pve:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:",),
    "vm migrate": ("vm migrate web01 pve2 --local-disks",),
    "vm move-disk": ("vm move-disk web01 scsi0 tank",),
    "vm next-id": ("vm next-id", "vm next-id 150 199"),
    "vm reboot": ("vm reboot web01 --if-pending",),
    "vm resize": ("vm resize web01 80G",),
    "vm restore": ("vm restore web01 local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst --overwrite",),
    "vm resume": ("vm resume web01",),
    "vm rollback": ("vm rollback web01 clean --dry-run",),
    "vm shutdown": ("vm shutdown web01 --timeout 60",),
    "vm snapshot": ("vm snapshot web01", "vm snapshot web01 clean", "vm snapshot web01 clean --delete"),
    "vm start": ("vm start web01",),
    "vm status": ("vm status web01 --json",),
    "vm stop": ("vm stop web01",),
    "vm storage": ("vm storage", "vm storage tank --content images"),
    "vm suspend": ("vm suspend web01 --to-disk",),
    "vm tasks": ("vm tasks web01 --errors", "vm tasks --running --limit 50"),
    "why": ("why web01", "why web01 --ask", "why web01 --diff 41 42", "why web01 --diff run:7 run:9"),
}
"""by command: what people type, without `nixherd`"""


def exit_codes() -> str:
    """Return the page of exit codes, which every command ends with."""
    from nixherd.deploy.report import Outcome

    lines = ["The status that a command ends with, pyinfra with our inventory included:", ""]
    for each in Exit:
        lines.append(f"  {int(each):>3}  {each.meaning}")
        outcomes = "; ".join(str(outcome) for outcome in Outcome if outcome.exit is each)
        lines += [f"       of a host: {outcomes}"] if outcomes else []
    last = "Of several hosts with different ends it is 1, or 5 if what became of any is unknown."
    return "\n".join([*lines, "", last])


_ASKING = """\
On a terminal the plan is shown and confirmed before

  deploy, reboot, exec       of the whole fleet: no host is named, or `all`
  rollback                   of machines and homes
  gc                         with the generations that would go
  vm destroy, restore, rollback, snapshot --delete
                             and other commands for guests whose steps interrupt one
  new, retire, vm adopt, fix these are refused where nobody can be asked

--yes skips the question. In a pipe the others go on without one; --dry-run shows the plan and does nothing."""
_OUTPUT = """\
Results go to stdout, everything else to stderr. On a terminal a result is lines or a table, elsewhere JSON; --table and
--json choose. Tables fit the terminal: names, VMIDs, UPIDs and volumes are whole, texts fold, and columns that do not
fit are named below. Outcomes have colours on a terminal, unless NO_COLOR is set or TERM is dumb.

A run without a terminal says at least every 30 seconds what it waits for. Each has a number: `nixherd report` lists the
last ones, `nixherd report 42` shows one again."""
_ENVIRONMENT = """\
  FLEET                 the fleet's directory, where --fleet is not given; else the one around here
  PROXMOX_TOKEN_FILE    the API token's file, where --token-file is not given
  XDG_STATE_HOME        what is kept between runs is in nixherd/ there; else in ~/.local/state
  XDG_CACHE_HOME        what TAB completes; else in ~/.cache
  NO_COLOR, TERM=dumb   no colours"""
_HOSTS = """\
Where a command takes HOST or GROUP, several of these can be named:

  a host's id in the fleet, its hostname or its alias; a pattern of ids, such as 'web*'
  a group: a tag of a host or of the definitions, or one of
    all, nixos, home_manager, managed, imported, readonly, lxc

--exclude takes some of them out. Without any name it is all of them."""


def _topics() -> dict[str, str]:
    pages = {"asking": _ASKING, "environment": _ENVIRONMENT, "output": _OUTPUT, "selection": _HOSTS}
    return {**pages, "exit-codes": exit_codes(), "facts": fact_names.page()}


TOPICS = ("asking", "environment", "exit-codes", "facts", "output", "selection")


def dressed(command: click.Command, path: str) -> click.Command:
    """Add examples to the help of a command or a group, and completion of names; a group shows whole summaries."""
    offer(command)
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            dressed(each, f"{path} {name}")
    elif path in EXAMPLES and "Examples:" not in (command.epilog or ""):
        examples = "\n".join(["\b", "Examples:", *(f"  nixherd {words}" for words in EXAMPLES[path])])
        command.epilog = "\n\n".join(filter(None, [examples, command.epilog]))
    return command


class Group(click.Group):
    """A group whose help does not cut what its commands do."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence about each command, whole."""
        rows = list(self._summaries(ctx))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def _summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command.get_short_help_str(limit=1000)


@click.command("help")
@click.argument("words", nargs=-1, metavar="[TOPIC | COMMAND...]")
@pass_front
@click.pass_context
def help_(ctx: click.Context, front: Front, words: tuple[str, ...]) -> None:
    """Show the help of a command, or a page about what all commands share; without either, what there is."""
    root = ctx.find_root()
    if not words:
        say_text(root.get_help())
        return
    if " ".join(words) in TOPICS:
        say_text(_topics()[" ".join(words)])
        return
    context = root
    for word in words:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            raise Usage(f"{' '.join(words)}: neither a command nor one of the topics {', '.join(TOPICS)}")
        context = click.Context(command, parent=context, info_name=word)
    say_text(context.get_help())
