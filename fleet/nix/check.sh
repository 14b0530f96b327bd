#!/usr/bin/env bash
# The quality gate of the fleet that we are in: `nixherd check` with the same words, its tools on PATH.
set -euo pipefail

# shellcheck disable=SC1091
declare -F nixherd_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/here.sh"

nixherd_here check "$@"
