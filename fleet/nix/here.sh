# shellcheck shell=bash
# For the fleet's commands: where their flake is, and where nixherd is.

# Print the nearest directory upwards that has a flake.nix; status 1 if there is none.
flake_here() {
  local place=$PWD
  until [ -e "$place/flake.nix" ]; do
    [ -n "$place" ] && [ "$place" != / ] || return 1
    place=${place%/*}
  done
  printf '%s\n' "${place:-/}"
}

# shellcheck disable=SC2317,SC2329  # some commands only use the function above
# Replace this process by nixherd with these arguments, for the current fleet, else that in FLEET, else this file's.
nixherd_here() {
  local fleet program=${NIXHERD:-nixherd}
  if fleet=$(flake_here) && [ -e "$fleet/hosts.nix" ]; then
    if [ -n "${FLEET:-}" ] && ! [ "$FLEET" -ef "$fleet" ]; then
      echo "${0##*/}: FLEET is $FLEET, but the current fleet is $fleet; unset FLEET, or change to that directory" >&2
      exit 2
    fi
  else
    fleet=${FLEET:-$(cd "$(dirname -- "$0")/.." && pwd)}
    if [ ! -e "$fleet/hosts.nix" ]; then
      echo "${0##*/}: no fleet (flake.nix with hosts.nix) in this directory or above; change to one, or set FLEET" >&2
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
