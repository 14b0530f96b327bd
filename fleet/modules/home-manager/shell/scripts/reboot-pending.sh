# shellcheck shell=bash
# reboot-pending [DIRECTORY]: whether a NixOS machine needs a reboot: whether the running kernel, its modules, the initrd
# or systemd differ from those that the current system would boot. DIRECTORY contains the links to both systems; the
# default is /run.
#
# Prints "no" and ends with 0, "yes: WHAT" with 1, or "unknown: WHY" with 2.

directory=${1:-/run}
booted=$directory/booted-system
current=$directory/current-system

unknown() {
    echo "unknown: $1"
    exit 2
}

for system in "$booted" "$current"; do
    [[ -e $system ]] || unknown "$system is missing; is this machine NixOS?"
done

differ=()
compared=0
for part in kernel kernel-modules initrd systemd; do
    was=$(readlink -e -- "$booted/$part") || was=
    now=$(readlink -e -- "$current/$part") || now=
    # A container has no kernel.
    [[ -n $was || -n $now ]] || continue
    compared=$((compared + 1))
    if [[ $was != "$now" ]]; then differ+=("$part"); fi
done

if ((compared == 0)); then unknown "neither system has a kernel or systemd to compare"; fi
if ((${#differ[@]} == 0)); then
    echo no
    exit 0
fi
echo "yes: ${differ[*]}"
exit 1
