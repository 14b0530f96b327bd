# The state of systemd's units: the first part of machine.sh, and of the queries to a machine before a deployment. $kind
# is `system` where units count.

kept_failing=/var/lib/nixherd/failing # units that failed when the last deployment was kept nevertheless

switch_lock=/run/nixos/switch-to-configuration.lock

has_systemd() { [ "$kind" = system ] && [ -d /run/systemd/system ]; } # a user may have one that ends with the session
list() { tr '\n' ' ' | sed 's/ *$//; s/ /, /g'; }

look_at_units() { # names, one per line: failed ones into $failing, running ones into $running, activations into $at_work
    units='' failing='' running='' at_work='' timers='' # and NAME=STATE of each timer that is not at rest
    ! has_systemd || units=$(systemctl list-units --plain --no-legend --full \
        --state=failed,auto-restart,active,reloading,activating,deactivating 2>/dev/null)
    while read -r unit _ active sub _; do # without a process for each question: a hundred machines are asked at once
        case $active:$sub in failed:* | *:auto-restart) failing="$failing$unit
" ;; esac
        case $active in active | reloading) running="$running$unit
" ;; esac
        case $active:$unit in
        failed:* | :*) ;;
        *:nixos-rebuild-switch-to-configuration.service | *:nixherd-deploy-*.service) at_work="$at_work$unit
" ;;
        *:*.timer) timers="$timers $unit=$active" ;;
        esac
    done <<LISTED
$units
LISTED
    failing=${failing%?} running=${running%?} at_work=${at_work%?}
}
switching() { # a switch outside of a unit: it holds a lock, found in the kernel's list because a trial would take it
    [ -e $switch_lock ] && [ -r /proc/locks ] || return 0
    # shellcheck disable=SC2046
    set -- $(stat -c '%D %i' $switch_lock)
    number=$((0x$1))
    number=$(printf '%02x:%02x' $((number >> 8 & 0xfff)) $((number & 0xff | number >> 12 & 0xfff00)))
    ! grep -q "FLOCK.* $number:$2 " /proc/locks || echo switch-to-configuration
}
units_in() { ! has_systemd || systemctl list-units --state="$1" --plain --no-legend --full 2>/dev/null | cut -d" " -f1 | sort; }
units_failed() { units_in failed,auto-restart; }
units_running() { units_in active,reloading; }

# A failure counts if it is the system's: of a unit that ran ($running, one per line), or one that such a unit wants.
# What an unprivileged user or a clock can make fail does not count: sessions, connections, transient units, and units
# started only by a timer, a socket, a path, a bus name or another failure.
unseen() { # of the failing units on stdin, those that the last kept deployment has not recorded
    if [ -r "$kept_failing" ]; then grep -vxF -f "$kept_failing"; else cat; fi
}
that_count() { # of the units on stdin
    while read -r unit; do [ -z "$unit" ] || ! counts "$unit" || echo "$unit"; done
}
that_do_not() {
    while read -r unit; do [ -z "$unit" ] || counts "$unit" || echo "$unit"; done
}

counts() { # unit
    case $1 in user@*.service | user-runtime-dir@*.service | *.scope) return 1 ;; esac
    [ "$(systemctl show -p Transient --value -- "$1" 2>/dev/null)" != yes ] || return 1
    case $1 in
    *@*.service) [ "$(systemctl show -p Accept --value -- "${1%%@*}.socket" 2>/dev/null)" != yes ] || return 1 ;;
    esac
    ! ran "$1" || return 0
    visited=' '
    case $(is_wanted "$1") in
    yes) return 0 ;;
    no) return 1 ;;
    esac
    # nothing wants it; unless something else may start it, the deployment did
    [ -z "$(systemctl show -p TriggeredBy -p BusName --value -- "$1" 2>/dev/null)" ]
}

ran() { case "
$running
" in *"
$1
"*) return 0 ;; *) return 1 ;; esac; }

is_wanted() { # unit: `yes` if a unit that ran wants it, `no` if only others do; empty if none does
    visited="$visited$1 "
    answer=
    for each in $(systemctl show -p WantedBy -p RequiredBy -p RequisiteOf -p BoundBy -p UpheldBy -p OnFailureOf \
        -p OnSuccessOf --value -- "$1" 2>/dev/null); do
        answer=no
        case $visited in *" $each "*) continue ;; esac
        if ran "$each" || [ "$(is_wanted "$each")" = yes ]; then
            echo yes
            return
        fi
    done
    echo $answer
}

not_now() { # why whoever looks after this machine wants it left alone, into $line: a file, or a lock on its shutdown
    for file in /etc/nixherd/hold /run/nixherd/hold; do
        [ -e "$file" ] || continue
        line=
        [ ! -r "$file" ] || IFS= read -r line <"$file"
        line="$file is there${line:+: $line}"
        return 0
    done
    has_systemd || return 1
    line=$(busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager ListInhibitors \
        2>/dev/null)
    case $line in
    *shutdown*'"block"'*)
        line=$(printf '%s\n' "$line" |
            grep -oE '"([^"\\]|\\.)*shutdown([^"\\]|\\.)*" "([^"\\]|\\.)*" "([^"\\]|\\.)*" "block"' | head -n 1)
        ;;
    *) line= ;;
    esac
    [ -z "$line" ] || line="a lock blocks its shutdown: $line"
    [ -n "$line" ]
}
