#!/usr/bin/env bash
# lint-nix: dead code (deadnix) and bad habits (statix) in the Nix files of the flake that we are in. Both look, whatever
# the first one finds. Status: 1 deadnix, 2 statix, 3 both; 64 wrong usage.
set -uo pipefail

# shellcheck disable=SC1091
declare -F flake_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/here.sh"

if [ $# -gt 0 ]; then
  echo "Usage: lint-nix (in a flake; it takes no words)" >&2
  [ "$1" = --help ] || [ "$1" = -h ] || exit 64
  exit 0
fi
if ! root=$(flake_here) || ! cd -- "$root"; then
  echo "lint-nix: no flake.nix is here nor above; go into a flake" >&2
  exit 64
fi
said=$(mktemp) || exit 64
trap 'rm -f -- "$said"' EXIT
failed=0

# look BIT PROGRAM WORDS…: what it says, and why it failed if it did
look() {
  local bit=$1 status=0
  shift
  echo "▶ $1"
  "$@" 2>&1 | tee -- "$said" || status=$?
  if grep -q 'panicked at' -- "$said"; then
    echo "$1 panicked: a fault of $1's own, so not all files were looked at; this counts as a failure" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 0 ] && [ -s "$said" ]; then
    # Both say nothing where all is well, and end with 0 as well over files and settings that they cannot read.
    echo "$1 said something and ended with status 0: not all files were looked at; this counts as a failure" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 127 ]; then
    echo "$1: not found; nix run .#lint-nix and nix develop bring it" >&2
    failed=$((failed | bit))
  elif [ "$status" -gt 1 ]; then
    echo "$1 ended with status $status: not all files were looked at" >&2
    failed=$((failed | bit))
  elif [ "$status" -eq 1 ]; then
    failed=$((failed | bit))
  fi
}

look 1 deadnix --fail .
look 2 statix check .
if [ "$failed" -eq 0 ]; then
  echo "✓ deadnix and statix find nothing in the files that they come upon (nixherd lint gives them every one)"
else
  echo "✗ see above (status $failed: 1 deadnix, 2 statix, 3 both)"
fi
exit "$failed"
