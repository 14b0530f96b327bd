#!/bin/sh
# The scheduled update of this machine: it waits until it may, has itself deployed what was published for it, under the
# guard of every deployment, and boots where another kernel asks for that and it may.
#
#   update.sh ROOT PULL PROGRAM BOOT GATE…
#
# ROOT is the machine's file system, empty but in tests; PULL is the program of nixherd-pull, PROGRAM what guards
# deployments (machine.sh); BOOT is `boot` or `-`. GATE… is a command that says whether it may now (gates.sh).
#
# It has an end when it has updated, or could not. As long as it waits that is noted, so that a boot does not forget it.
set -u
umask 022
export LC_ALL=C
root=$1 pull=$2 program=$3 boot=$4
shift 4
kept=$root/var/lib/nixherd/update booted=$root/run/booted-system next=$root/nix/var/nix/profiles/system
boot_id=$root/proc/sys/kernel/random/boot_id
pause=60      # seconds between two looks at what is waited for
unreached=5   # times in a row that the cache may be out of reach: a network that is just coming up

wait_for() { # why: said once, however long it takes
    [ "$1" = "${told:-}" ] || printf '%s\n' "$1"
    told=$1
    printf '%s\n' "$1" >"$kept/waits"
    sleep $pause
}

awake() { # command: run it, and nothing puts the machine to sleep meanwhile
    set -- --what=sleep:idle:handle-lid-switch --who=nixherd '--why=It is updated' -- "$@"
    if systemd-inhibit --what=sleep --who=nixherd --why=- true >/dev/null 2>&1; then
        systemd-inhibit "$@"
    else
        echo 'sleep: unknown: nobody here holds it off'
        while [ "$1" != -- ]; do shift; done
        shift
        "$@"
    fi
}

deploying() { # whether somebody's deployment is under way: a boot would end it
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

# A boot ---------------------------------------------------------------------------------------------------------------

kernel() { readlink -e "$1/kernel" && readlink -e "$1/kernel-modules"; }
runs=$(kernel "$booted") wanted=$(kernel "$next")
if [ -z "$runs" ] || [ -z "$wanted" ]; then
    echo 'boot: unknown: this machine does not say which kernel it booted'
    [ "$boot" != boot ] || exit 1
    exit 0
fi
if [ "$runs" = "$wanted" ]; then
    rm -f "$kept/booted-for"
    exit 0
fi
name=${wanted%%/bzImage*}
name=${name##*/} now=$(cat "$boot_id")
if [ "$boot" != boot ]; then
    echo "boot: waits: another kernel asks for one ($name), and homelab.update.rebootOnKernelUpdate is off"
    exit 0
fi
if [ -e "$kept/booted-for" ] && [ "$(sed 1d "$kept/booted-for")" = "$wanted" ] && [ "$(sed 1q "$kept/booted-for")" != "$now" ]; then
    echo "boot: it was booted for this kernel ($name) and runs another one all the same; look at what its boot loader starts"
    exit 1
fi
while deploying; do wait_for 'boot: waits: another deployment is under way'; done
rm -f "$kept/waits"
printf '%s\n' "$now" "$wanted" >"$kept/booted-for"
echo "boot: another kernel asks for it ($name)"
if ! said=$(systemctl --check-inhibitors=yes reboot 2>&1); then
    printf 'boot: waits: %s\n' "$(printf '%s' "$said" | tr '\n' ' ')"
    exit 75
fi
