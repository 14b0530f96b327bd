# shellcheck shell=bash
# system-diff [FROM [TO]]: what differs between two systems, by packages and versions. FROM and TO are generation
# numbers or paths; the defaults are the booted and the running system.

profile=/nix/var/nix/profiles/system

# The store path of a generation's number or of a path.
system() {
    local path=$1
    if [[ $path =~ ^[0-9]+$ ]]; then path=$profile-$path-link; fi
    readlink -e -- "$path" || {
        echo "system-diff: $path is missing; to list the generations: nixos-rebuild list-generations" >&2
        exit 2
    }
}

if (($# > 2)); then
    echo "usage: system-diff [FROM [TO]]" >&2
    exit 2
fi
from=$(system "${1:-/run/booted-system}")
to=$(system "${2:-/run/current-system}")
if [[ $from == "$to" ]]; then
    echo "no difference: both are $to"
    exit 0
fi
exec nvd diff "$from" "$to"
