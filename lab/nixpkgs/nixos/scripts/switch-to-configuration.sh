#!/usr/bin/bash
# Switch this machine to the generation that contains this script, like NixOS' own: same actions, same order,
# same exit codes (1 refused or boot loader failed, 2 activation script failed, 3 systemd failed, 4 units failed,
# 100 the running system is too different). The new system's own checks come first, also with `check` alone.
set -u
export PATH=/usr/bin:/usr/sbin LC_ALL=C

action=${1:-}
toplevel=$(readlink -f "${BASH_SOURCE[0]}") toplevel=${toplevel%/bin/*}
export NIXOS_ACTION=$action
case $action in
switch | boot | test | dry-activate | check) ;;
*)
    printf '%s\n' "Usage: $0 [switch|boot|test|dry-activate|check]" '' \
        'switch:       make the configuration the boot default and activate now' \
        'boot:         make the configuration the boot default' \
        'test:         activate the configuration, but don'\''t make it the boot default' \
        'dry-activate: show what would be done if this configuration were activated' \
        'check:        run what the configuration checks before it is switched to' >&2
    exit 1
    ;;
esac

if [[ -z ${NIXOS_INSTALL_BOOTLOADER:-} && ! -e /etc/NIXOS ]] && ! grep -qs '^ID="\?nixos"\?$' /etc/os-release; then
    echo 'This is not a NixOS installation!' >&2
    exit 1
fi

mkdir -p /run/nixos
if ! exec 9>/run/nixos/switch-to-configuration.lock || ! flock -n 9; then
    echo 'Could not acquire lock' >&2
    exit 1
fi

checks=$toplevel/pre-switch-checks
if [[ ${NIXOS_NO_CHECK:-} != 1 && -e $checks ]] && ! "$checks" "$toplevel" "$action" >&2; then
    echo 'Pre-switch checks failed' >&2
    exit 1
fi
[[ $action == check ]] && exit 0

if [[ $action == switch || $action == boot ]]; then
    if ! "$toplevel/install-boot-loader" "$toplevel"; then
        echo 'Failed to install bootloader' >&2
        exit 1
    fi
fi
[[ $action == boot ]] && exit 0

if [[ -e /run/current-system/init-interface-version && -z ${NIXOS_NO_CHECK:-} ]] &&
    ! cmp -s /run/current-system/init-interface-version "$toplevel/init-interface-version"; then
    echo "Warning: the new NixOS configuration has an ‘init’ that is incompatible with the current configuration.  The new configuration won't take effect until you reboot the system." >&2
    exit 100
fi

if [[ ! -d /run/systemd/system ]]; then # the lab's light hosts have no units
    [[ $action == dry-activate ]] && exec "$toplevel/dry-activate"
    echo 'activating the configuration...' >&2
    NIXOS_ACTIVATE=1 "$toplevel/activate" || exit 2
    exit 0
fi

# ---- changes ---------------------------------------------------------------------------------------------------------

old=/run/current-system/etc/systemd/system new=$toplevel/etc/systemd/system
stop=() start=() restart=() reload=() skipped=()

# Put the text of one of our units, its file and its drop-in, into $text: empty for a unit that is absent or masked.
# No other process is started: each active unit is looked up twice.
text_of() { # directory, name of the file
    local file part
    text=
    [[ ! $1/$2 -ef /dev/null ]] || return
    for file in "$1/$2" "$1/$2.d/overrides.conf"; do
        [[ ! -f $file ]] || { IFS= read -r -d '' part <"$file" || text+=$part; }
    done
}
says() { grep -qx "$2" <<<"$1"; }

sort_out() { # name of an active unit
    local unit=$1 file=$1 text before after
    [[ $unit == *@*.* ]] && file=${unit%%@*}@.${unit##*.}
    text_of "$old" "$file"
    before=$text
    [[ -n $before ]] || return # not one of ours
    text_of "$new" "$file"
    after=$text
    if [[ -z $after ]]; then
        says "$before" 'X-StopOnRemoval=false' || stop+=("$unit")
    elif [[ $before == "$after" ]]; then
        return
    elif [[ $(grep -v '^X-Reload-Triggers=' <<<"$before") == $(grep -v '^X-Reload-Triggers=' <<<"$after") ]]; then
        reload+=("$unit")
    else
        case $unit in
        *.target | *.slice) ;; # their own text has no effect
        *.mount) reload+=("$unit") ;;
        *.service)
            if says "$after" 'X-ReloadIfChanged=true'; then
                reload+=("$unit")
            elif says "$after" 'X-RestartIfChanged=false' || says "$after" 'RefuseManualStop=\(true\|yes\)'; then
                skipped+=("$unit")
            elif says "$after" 'X-StopIfChanged=false'; then
                restart+=("$unit")
            else
                stop+=("$unit") start+=("$unit")
            fi
            ;;
        *) stop+=("$unit") start+=("$unit") ;;
        esac
    fi
}
join() { local IFS=,; echo "${*//,/, }" | sed 's/,/, /g'; }
tell() { # sentence, units…
    local sentence=$1
    shift
    (($#)) && echo "$sentence the following units: $(join "$@")" >&2
}

while read -r unit _; do sort_out "$unit"; done < <(
    systemctl list-units --all --full --plain --no-legend --state=active,activating,reloading,deactivating)

if [[ $action == dry-activate ]]; then
    tell 'would stop' "${stop[@]}"
    tell 'would NOT restart' "${skipped[@]}"
    echo 'would activate the configuration...' >&2
    NIXOS_ACTIVATE=1 "$toplevel/dry-activate"
    tell 'would reload' "${reload[@]}"
    tell 'would restart' "${restart[@]}"
    tell 'would start' "${start[@]}"
    exit 0
fi

# ---- execution ---------------------------------------------------------------------------------------------------------

status=0
if ((${#stop[@]})); then
    tell stopping "${stop[@]}"
    systemctl stop -- "${stop[@]}"
fi
tell 'NOT restarting' "${skipped[@]}"

echo 'activating the configuration...' >&2
NIXOS_ACTIVATE=1 "$toplevel/activate" || status=2

# What the activation wants: units that do not run are started.
lists=/run/nixos/activation
while read -r unit; do
    if systemctl is-active --quiet -- "$unit"; then restart+=("$unit"); else start+=("$unit"); fi
done < <(sort -u "$lists-restart-list" 2>/dev/null)
while read -r unit; do
    [[ " ${restart[*]} ${start[*]} " == *" $unit "* ]] || ! systemctl is-active --quiet -- "$unit" || reload+=("$unit")
done < <(sort -u "$lists-reload-list" 2>/dev/null)
rm -f "$lists-restart-list" "$lists-reload-list"

systemctl reset-failed
systemctl daemon-reload || status=3
# Debian's own rules name /run/lock twice
systemd-tmpfiles --create --remove --exclude-prefix=/dev 2> >(grep -v 'Duplicate line' >&2) || true

if ((${#reload[@]})); then
    tell reloading "${reload[@]}"
    systemctl reload -- "${reload[@]}" || status=4
fi
if ((${#restart[@]})); then
    tell restarting "${restart[@]}"
    systemctl restart -- "${restart[@]}" || status=4
fi
tell starting "${start[@]}"
# targets start again what the new configuration wants and what is not running yet
systemctl start -- default.target timers.target sockets.target "${start[@]}" || status=4

mapfile -t failed < <(systemctl list-units --all --full --plain --no-legend --state=failed | cut -d' ' -f1)
if ((${#failed[@]})); then
    echo "warning: the following units failed: $(join "${failed[@]}")" >&2
    for unit in "${failed[@]}"; do systemctl status --no-pager --full "$unit" >&2; done
    status=4
fi
exit $status
