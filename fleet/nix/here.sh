# shellcheck shell=bash
# For the fleet's commands: where the flake is that they are for, and where nixherd is.

# The nearest directory from here upwards that has a flake.nix; none: nothing, and status 1.
flake_here() {
  local place=$PWD
  until [ -e "$place/flake.nix" ]; do
    [ -n "$place" ] && [ "$place" != / ] || return 1
    place=${place%/*}
  done
  printf '%s\n' "${place:-/}"
}

# shellcheck disable=SC2317,SC2329  # some commands use the one above alone
# Becomes nixherd with these words, on the fleet that we are in, else on the one in FLEET, else on the one of this file.
nixherd_here() {
  local fleet program=${NIXHERD:-nixherd}
  if fleet=$(flake_here) && [ -e "$fleet/hosts.nix" ]; then
    if [ -n "${FLEET:-}" ] && ! [ "$FLEET" -ef "$fleet" ]; then
      echo "${0##*/}: which fleet? FLEET says $FLEET, and this is $fleet; unset FLEET, or go there" >&2
      exit 2
    fi
  else
    fleet=${FLEET:-$(cd "$(dirname -- "$0")/.." && pwd)}
    if [ ! -e "$fleet/hosts.nix" ]; then
      echo "${0##*/}: no fleet is here (flake.nix with hosts.nix) nor above; go into one, or name it in FLEET" >&2
      exit 2
    fi
  fi
  [ ! -d "$program" ] || program=$program/.venv/bin/nixherd
  if ! command -v -- "$program" >/dev/null; then
    echo "${0##*/}: $program is missing; install nixherd (in its checkout: python3 -m venv .venv &&" \
      ".venv/bin/pip install -c constraints.txt -e .) and put .venv/bin on PATH, or the checkout into NIXHERD" >&2
    exit 127
  fi
  exec "$program" --fleet "$fleet" "$@"
}
