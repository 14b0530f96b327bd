#!/bin/sh
# The scheduled update of this machine: wait until the gates are open, deploy what was published for it with the usual
# guard, and reboot if a different kernel needs it and a reboot is allowed.
#
#   update.sh ROOT PULL PROGRAM BOOT GATE…
#
# ROOT is the machine's file system, empty except in tests; PULL is the program of nixherd-pull, PROGRAM the one that
# guards deployments (machine.sh); BOOT is `boot` or `-`. GATE… is a command that tests the gates (gates.sh).
#
# It ends when it has updated, or cannot. While it waits, that is recorded, so that it continues after a reboot.
set -u
umask 022
export LC_ALL=C
root=$1 pull=$2 program=$3 boot=$4
shift 4
kept=$root/var/lib/nixherd/update booted=$root/run/booted-system next=$root/nix/var/nix/profiles/system
boot_id=$root/proc/sys/kernel/random/boot_id
pause=60      # seconds between two tests of the gates
unreached=5   # times in a row that the cache may be unreachable: the network may just be coming up

wait_for() { # why: printed once, however long it takes
    [ "$1" = "${printed:-}" ] || printf '%s\n' "$1"
    printed=$1
    printf '%s\n' "$1" >"$kept/waits"
    sleep $pause
}

awake() { # command: run it while sleep is inhibited
    set -- --what=sleep:idle:handle-lid-switch --who=nixherd '--why=It is updated' -- "$@"
    if systemd-inhibit --what=sleep --who=nixherd --why=- true >/dev/null 2>&1; then
        systemd-inhibit "$@"
    else
        echo 'sleep: unknown: it cannot be inhibited here'
        while [ "$1" != -- ]; do shift; done
        shift
        "$@"
    fi
}

deploying() { # whether a deployment is under way: a reboot would end it
    case $(sh "$program" system last | sed -n 's/^state=//p') in
    armed | activating | proving | keeping | reverting) return 0 ;;
    esac
    return 1
}

mkdir -p "$kept"

# The update -----------------------------------------------------------------------------------------------------------

while :; do
    if ! seen=$("$@"); then
        wait_for "$seen"
        continue
    fi
    [ -z "$seen" ] || printf '%s\n' "$seen"
    awake "$pull"
    status=$?
    case $status in
    75) wait_for 'update: waits: another deployment is under way' ;;
    69)
        unreached=$((unreached - 1))
        [ $unreached -gt 0 ] || break
        wait_for 'update: waits: the cache is out of reach'
        ;;
    *) break ;;
    esac
done
rm -f "$kept/waits"
[ "$status" = 0 ] || exit "$status"

# Reboot ---------------------------------------------------------------------------------------------------------------

kernel() { readlink -e "$1/kernel" && readlink -e "$1/kernel-modules"; }
runs=$(kernel "$booted") needed=$(kernel "$next")
if [ -z "$runs" ] || [ -z "$needed" ]; then
    echo 'boot: unknown: cannot determine which kernel this machine booted'
    [ "$boot" != boot ] || exit 1
    exit 0
fi
if [ "$runs" = "$needed" ]; then
    rm -f "$kept/booted-for"
    exit 0
fi
name=${needed%%/bzImage*}
name=${name##*/} now=$(cat "$boot_id")
if [ "$boot" != boot ]; then
    echo "boot: waits: a new kernel needs a reboot ($name), but homelab.update.rebootOnKernelUpdate is off"
    exit 0
fi
if [ -e "$kept/booted-for" ] && [ "$(sed 1d "$kept/booted-for")" = "$needed" ] && [ "$(sed 1q "$kept/booted-for")" != "$now" ]; then
    echo "boot: the machine rebooted for this kernel ($name) but still runs a different one; check what its boot loader starts"
    exit 1
fi
while deploying; do wait_for 'boot: waits: another deployment is under way'; done
rm -f "$kept/waits"
printf '%s\n' "$now" "$needed" >"$kept/booted-for"
echo "boot: rebooting for a new kernel ($name)"
if ! output=$(systemctl --check-inhibitors=yes reboot 2>&1); then
    printf 'boot: waits: %s\n' "$(printf '%s' "$output" | tr '\n' ' ')"
    exit 75
fi
