#!/usr/bin/env bash
# lint-nix: find dead code (deadnix) and bad style (statix) in the Nix files of the current flake. Both run, whatever the
# first one finds. Status: 1 deadnix, 2 statix, 3 both; 64 wrong usage.
set -uo pipefail

# shellcheck disable=SC1091
declare -F flake_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/here.sh"

if [ $# -gt 0 ]; then
  echo "Usage: lint-nix (in a flake, without arguments)" >&2
  [ "$1" = --help ] || [ "$1" = -h ] || exit 64
  exit 0
fi
if ! root=$(flake_here) || ! cd -- "$root"; then
  echo "lint-nix: no flake.nix in this directory or above; change to a flake" >&2
  exit 64
fi
output=$(mktemp) || exit 64
trap 'rm -f -- "$output"' EXIT
failed=0

# look BIT PROGRAM ARGUMENTS…: print its output, and why it failed if it did
look() {
  local bit=$1 status=0
  shift
  echo "▶ $1"
  "$@" 2>&1 | tee -- "$output" || status=$?
  if grep -q 'panicked at' -- "$output"; then
    echo "$1 panicked: a bug in $1, so not all files were checked; this counts as a failure" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 0 ] && [ -s "$output" ]; then
    # Both print nothing on success, and end with 0 even for files and settings that they cannot read.
    echo "$1 printed a message but ended with status 0: not all files were checked; this counts as a failure" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 127 ]; then
    echo "$1: not found; nix run .#lint-nix and nix develop bring it" >&2
    failed=$((failed | bit))
  elif [ "$status" -gt 1 ]; then
    echo "$1 ended with status $status: not all files were checked" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 1 ]; then
    failed=$((failed | bit))
  fi
}

look 1 deadnix --fail .
look 2 statix check .
if [ "$failed" -eq 0 ]; then
  echo "✓ deadnix and statix find nothing in the files that they visit (nixherd lint passes every file)"
else
  echo "✗ see above (status $failed: 1 deadnix, 2 statix, 3 both)"
fi
exit "$failed"
