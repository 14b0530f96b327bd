#!/usr/bin/env bash
# post-provision-vm NAME [IP VMID] [--dry-run]: put an installed virtual machine into service. IP and VMID are compared
# with the hypervisor and the definitions; if they differ, nothing is changed.
set -euo pipefail

# shellcheck disable=SC1091
declare -F nixherd_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/../nix/here.sh"

if [ $# -ge 3 ] && [[ $1 != -* && $2 != -* && $3 != -* ]]; then
  nixherd_here post-provision "$1" --ip "$2" --vmid "$3" "${@:4}"
fi
nixherd_here post-provision "$@"
