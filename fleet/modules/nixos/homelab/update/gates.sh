#!/bin/sh
# Whether this machine may update itself now: its power source and its network. Prints one line for each requested gate,
# `GATE: WORD: OBSERVATION`; WORD is `open`, `waits` or `unknown`, and unknown is not open. Ends with 0 if all are open,
# with 75 otherwise.
#
#   gates.sh SUPPLIES POWER NETWORK [SSID…]
#
# SUPPLIES is /sys/class/power_supply; POWER is `mains`, or `-` to skip it; NETWORK is `unmetered`, or `-` to skip it.
# With SSIDs only these wireless networks count.
set -u
export LC_ALL=C
supplies=$1 power=$2 network=$3
shift 3
closed=0

say() { # gate, word, observation
    printf '%s: %s: %s\n' "$@"
    [ "$2" = open ] || closed=75
}

# Power source ----------------------------------------------------------------------------------------------------------

attribute() { # of $supply, into $value: empty if the kernel does not provide it
    value=
    { read -r value <"$supply/$1"; } 2>/dev/null || :
}

# A discharging battery outweighs a USB port that supplies power, which may be too little; mains outweigh both. A mouse
# has a battery too, which the kernel marks as a device's.
look_at_power() {
    mains='' port='' discharging='' filled=''
    for supply in "$supplies"/*; do
        name=${supply##*/}
        attribute scope
        [ "$value" != Device ] || continue
        attribute type
        case $value in
        Mains)
            attribute online
            case $value in 1) mains=$name ;; 0) [ -n "$mains" ] || mains=off ;; esac
            ;;
        USB | Wireless)
            attribute online
            case $value in 1 | 2) port=$name ;; esac
            ;;
        Battery | UPS)
            attribute status
            case $value in
            Discharging) discharging=$name ;;
            Charging) port=$name ;;
            Full | 'Not charging') filled=$name ;;
            esac
            ;;
        esac
    done
    case $mains in
    '' | off) ;;
    *) say power open "on mains ($mains)" && return ;;
    esac
    if [ -n "$discharging" ]; then
        say power waits "on battery ($discharging discharges)"
    elif [ -n "$port" ]; then
        say power open "powered by ($port)"
    elif [ -n "$filled" ] && [ -z "$mains" ]; then
        say power open "$filled does not discharge"
    elif [ "$mains" = off ] && [ -z "$filled" ]; then
        say power unknown "mains are off, and no battery reports that it discharges"
    elif [ "$mains" = off ]; then
        say power unknown "mains are off, and $filled reports that it does not discharge"
    else
        say power unknown 'the kernel reports neither mains nor battery; if there is none, set homelab.update.checkAcPower = false'
    fi
}

# Network -------------------------------------------------------------------------------------------------------------

ask() { timeout 20 nmcli --terse --escape no "$@" 2>/dev/null; }

metered() { # device, description: whether it is metered or unknown; prints the observation then
    case $(ask --get-values GENERAL.METERED device show "$1") in
    no*) return 1 ;;
    yes*) say network waits "$2 is metered" ;;
    *) say network unknown "whether $2 is metered; to declare it: \`nmcli connection modify NAME connection.metered no\`" ;;
    esac
}

listed() { # SSID
    known=$1
    shift
    for each in "$@"; do [ "$each" != "$known" ] || return 0; done
    return 1
}

# NetworkManager prefers a cable, and uses a mobile network last. Anything above that (a VPN, a bridge) counts as its
# carrier.
look_at_network() { # SSIDs
    devices=$(ask --fields TYPE,STATE,DEVICE device status) ||
        { say network unknown 'NetworkManager does not answer; without it, set homelab.update.checkWifi = false' && return; }
    of_type() { printf '%s\n' "$devices" | sed -n "s/^$1:connected[^:]*://p"; }
    wires=$(of_type ethernet) radios=$(of_type wifi) mobile=$(of_type gsm)$(of_type cdma)$(of_type bt)
    if [ -n "$wires" ]; then
        for device in $wires; do ! metered "$device" "$device" || return 0; done
        say network open "by cable ($device)"
        return
    fi
    for device in $radios; do
        ssid=$(ask --fields ACTIVE,SSID device wifi list --rescan no ifname "$device" | sed -n 's/^yes://p')
        if [ -z "$ssid" ]; then
            say network unknown "the wireless network of $device" && return
        elif [ $# -gt 0 ] && ! listed "$ssid" "$@"; then
            say network waits "$ssid is not listed in homelab.update.checkWifi" && return
        elif metered "$device" "$ssid"; then
            return
        fi
    done
    if [ -n "$radios" ]; then
        say network open "by $ssid"
    elif [ -n "$mobile" ]; then
        say network waits 'by a mobile network'
    else
        say network waits 'not connected'
    fi
}

[ "$power" != mains ] || look_at_power
[ "$network" != unmetered ] || look_at_network "$@"
exit $closed
