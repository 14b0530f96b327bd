#!/usr/bin/env bash
# A short form of `nixherd vm`. Everything uses the hypervisor's API and nixherd's guard, never SSH to the hypervisor.
set -euo pipefail

# shellcheck disable=SC1091
declare -F nixherd_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/../nix/here.sh"

usage() {
  cat <<'EOT'
Usage: proxmox-ops COMMAND [WORDS…]
  list                      all guests
  status GUEST              where a guest is and how it stands
  start GUEST               switch it on
  stop GUEST                pull the plug
  next-vmid [FIRST [LAST]]  the lowest VMID that is free, of the range `production` or of these
GUEST is a name of the definitions, a host's name or alias, or a VMID. All else: nixherd vm --help
EOT
}

# Hints for users of other tools' commands.
instead() {
  echo "proxmox-ops: the command is not $command but: $1" >&2
  exit 2
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  list | status | start | stop) nixherd_here vm "$command" "$@" ;;
  next-vmid)
    if [ $# -eq 1 ] && [[ $1 =~ ^[0-9]+$ ]]; then
      set -- "$1" 999999999
    fi
    nixherd_here vm next-id "$@"
    ;;
  config) instead "nixherd vm config GUEST" ;;
  clone) instead "nixherd provision NAME, or nixherd vm clone NAME alone, of what vms/definitions.nix declares" ;;
  configure) instead "nixherd vm apply GUEST, after its cores and memory in vms/definitions.nix" ;;
  create-disk) instead "nixherd vm add-disk GUEST DISK SIZE" ;;
  resize) instead "nixherd vm resize GUEST SIZE [--disk DISK]" ;;
  cloudinit-drive | cloudinit-config) instead "nixherd provision NAME, which gives a machine drive, user, keys and network; nixherd vm diff GUEST looks" ;;
  shutdown) instead "nixherd vm shutdown GUEST" ;;
  destroy) instead "nixherd vm destroy NAME VMID, which names what goes and makes a backup before" ;;
  get-ip) instead "nixherd vm ip GUEST" ;;
  wait-ssh) instead "nixherd provision NAME, which waits for the machine and proves which one it is; nixherd vm ip GUEST looks" ;;
  storage) instead "nixherd vm storage" ;;
  -h | --help | help) usage ;;
  '')
    usage >&2
    exit 2
    ;;
  *)
    echo "proxmox-ops: unknown command $command; see proxmox-ops --help, or nixherd vm --help" >&2
    exit 2
    ;;
esac
