#!/usr/bin/env bash
# provision-vm NAME… [--dry-run]: create a virtual machine from its definition, install it, put it into service.
set -euo pipefail

# shellcheck disable=SC1091
declare -F nixherd_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/../nix/here.sh"

nixherd_here provision "$@"
