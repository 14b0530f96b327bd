#!/bin/sh
# Whether this machine may update itself now: what it runs on, and by which network. Says a line for each gate that is
# asked for, `GATE: WORD: what was seen`; WORD is `open`, `waits` or `unknown`, and unknown is not open. Status 0 where
# all of them are open, 75 where one is not.
#
#   gates.sh SUPPLIES POWER NETWORK [SSID…]
#
# SUPPLIES is /sys/class/power_supply; POWER is `mains`, or `-` where it does not matter; NETWORK is `unmetered`, or `-`.
# With SSIDs only these wireless networks count.
set -u
export LC_ALL=C
supplies=$1 power=$2 network=$3
shift 3
closed=0

say() { # gate, word, what was seen
    printf '%s: %s: %s\n' "$@"
    [ "$2" = open ] || closed=75
}

# What it runs on ------------------------------------------------------------------------------------------------------

attribute() { # of $supply, into $value: nothing where the kernel does not say
    value=
    { read -r value <"$supply/$1"; } 2>/dev/null || :
}

# A battery that discharges counts more than a USB port that gives power, which may be too little; mains count more than
# both. A mouse has a battery, too, of which the kernel says that it is a device's.
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
        say power open "power comes in ($port)"
    elif [ -n "$filled" ] && [ -z "$mains" ]; then
        say power open "nothing is taken from $filled"
    elif [ "$mains" = off ] && [ -z "$filled" ]; then
        say power unknown "mains are off, and no battery says that it discharges"
    elif [ "$mains" = off ]; then
        say power unknown "mains are off, and $filled says that it does not discharge"
    else
        say power unknown 'the kernel names no mains and no battery; without any, homelab.update.checkAcPower = false'
    fi
}

# By which network -----------------------------------------------------------------------------------------------------

ask() { timeout 20 nmcli --terse --escape no "$@" 2>/dev/null; }

metered() { # device, what it is: whether every byte costs something, or nobody says; what was seen is said then
    case $(ask --get-values GENERAL.METERED device show "$1") in
    no*) return 1 ;;
    yes*) say network waits "$2 is metered" ;;
    *) say network unknown "whether $2 is metered; \`nmcli connection modify NAME connection.metered no\` says it" ;;
    esac
}

listed() { # SSID
    known=$1
    shift
    for each in "$@"; do [ "$each" != "$known" ] || return 0; done
    return 1
}

# NetworkManager goes by wire where there is one, and by a mobile network last. What lies above all that (a VPN, a
# bridge) is as good as what carries it.
look_at_network() { # SSIDs
    devices=$(ask --fields TYPE,STATE,DEVICE device status) ||
        { say network unknown 'NetworkManager does not answer; without it, homelab.update.checkWifi = false' && return; }
    of_type() { printf '%s\n' "$devices" | sed -n "s/^$1:connected[^:]*://p"; }
    wires=$(of_type ethernet) radios=$(of_type wifi) mobile=$(of_type gsm)$(of_type cdma)$(of_type bt)
    if [ -n "$wires" ]; then
        for device in $wires; do ! metered "$device" "$device" || return 0; done
        say network open "by wire ($device)"
        return
    fi
    for device in $radios; do
        ssid=$(ask --fields ACTIVE,SSID device wifi list --rescan no ifname "$device" | sed -n 's/^yes://p')
        if [ -z "$ssid" ]; then
            say network unknown "which wireless network $device is in" && return
        elif [ $# -gt 0 ] && ! listed "$ssid" "$@"; then
            say network waits "$ssid is not one of homelab.update.checkWifi" && return
        elif metered "$device" "$ssid"; then
            return
        fi
    done
    if [ -n "$radios" ]; then
        say network open "by $ssid"
    elif [ -n "$mobile" ]; then
        say network waits 'by a mobile network'
    else
        say network waits 'there is none'
    fi
}

[ "$power" != mains ] || look_at_power
[ "$network" != unmetered ] || look_at_network "$@"
exit $closed
