#!/usr/bin/env bash
# The quality gate of the current fleet: `nixherd check` with the same arguments, its tools on PATH.
set -euo pipefail

# shellcheck disable=SC1091
declare -F nixherd_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/here.sh"

nixherd_here check "$@"
