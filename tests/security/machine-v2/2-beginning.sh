# One deployment on this machine, from its beginning to its end, in a process that depends on nobody; units.sh and ends.sh
# come before this. The first argument is what is deployed: a `system`, as root, or a `home`, as its user. Then:
#
#   begin PROTOCOL ID WHO GOAL SYSTEM SPECIALISATION DEADLINE CONFIRM GENERATION REBOOT CHECKS
#                       start `watch` detached, unless another one is under way; a system that is a generation already
#                       may be named by its number; `reboot` where that may be the last resort; `unchecked` where what
#                       the new system says against being switched to is not to be heard
#   watch ID            activate; wait for the word; keep, or go back to what was there before
#   say ID WORD [WHY]   the word of whoever deploys, `keep` or `back`, once; the first one counts
#   look ID STATE WAIT  how it stands, as soon as it is in another state than this, or after so many seconds
#   last                how the last deployment since the boot stands, and what runs
#
# Sent anew with each deployment: nothing of ours is installed on a machine. A reboot ends a deployment, and the machine
# boots what it would have booted before: a system's profile and boot entry are changed by `keep` alone. States: armed,
# activating, proving, keeping, reverting; kept, reverted, refused and stuck are ends, but who is stuck goes on trying.
# Every answer says the version of all this: whoever asks may speak it or not.
set -u
protocol=2
kind=$1
shift
grace=10 # seconds that a unit may take to stop
busy='armed activating proving keeping reverting' # states of a deployment that goes on
spare=20480 # KiB in /run, without which systemd (16 MiB) reloads nothing any more
export LC_ALL=C
if [ "$kind" = system ]; then
    here=/run/nixherd/deploy
    roots=/nix/var/nix/gcroots/nixherd
    profile=/nix/var/nix/profiles/system
    live=/run/current-system # what runs
    room=/run/nixherd/room # what can be given up where it is needed
    activation=nixos-rebuild-switch-to-configuration.service # nixos-rebuild's name: the two exclude each other
    export PATH=/run/current-system/sw/bin:/run/wrappers/bin:/usr/bin:/usr/sbin:/bin:/sbin
else
    # what is in /run goes with the user's last session; a reboot is another name
    read -r boot </proc/sys/kernel/random/boot_id
    here=$HOME/.local/state/nixherd/deploy-$boot
    roots=$here/roots
    profile=${XDG_STATE_HOME:-$HOME/.local/state}/nix/profiles/home-manager
    USER=$(id -un)
    [ -e "$profile" ] || [ ! -e "/nix/var/nix/profiles/per-user/$USER/home-manager" ] ||
        profile=/nix/var/nix/profiles/per-user/$USER/home-manager
    live=$profile
    room=$here/room
    activation=nixherd-home.service
    export USER PATH="$HOME/.nix-profile/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/bin:/bin:$PATH"
fi

load() { # of deployment $1
    id=$1 dir=$here/$1
    [ -r "$dir/settings" ] || return 1
    was='' reboot='' checks='' # which a program of the version before does not note
    # shellcheck disable=SC1091
    . "$dir/settings"
    # what the new system might lack, the old one has
    [ "$kind" = home ] || PATH=$old/sw/bin:$PATH
    if [ -r "$dir/running-before" ]; then running=$(cat "$dir/running-before"); else running=$(units_running); fi
}

recent() { [ -e "$here/current" ] && load "$(readlink "$here/current")"; } # the last deployment since the boot

write() { # file, text: whole or not at all
    printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"
}

state() { # into $stands, without another process: it is asked often
    stands=none
    [ ! -r "$dir/state" ] || while read -r line; do stands=$line; done <"$dir/state"
}

noted() { # file: its first line into $line
    line=
    [ ! -r "$1" ] || read -r line <"$1"
}

rest() { # between two looks; the longer it takes the longer
    sleep "${pause:=0.02}"
    case $pause in 0.02) pause=0.03 ;; 0.03) pause=0.05 ;; 0.05) pause=0.1 ;; 0.1) pause=0.2 ;; *) pause=0.4 ;; esac
}

enter() { # state, why: the reason comes first, who sees the state finds it; one that cannot be noted holds nothing up
    [ -z "${2:-}" ] || [ -s "$dir/why" ] || printf '%s\n' "$2" >"$dir/why"
    printf '%s\n' "$1" >>"$dir/state" || { rm -f "$room" && printf '\n%s\n' "$1" >>"$dir/state"; }
}

clock() { # seconds since the boot, suspended ones included, whatever the time of day does
    read -r now _ </proc/uptime
    now=${now%.*}
}

switch() { # system: make the machine, or the home, be this one
    if [ "$kind" = system ]; then set -- "$1/bin/switch-to-configuration" test; else set -- "$1/activate"; fi
    "$@"
}

detached() { # unit, properties… -- command…: start it, in nobody's session
    unit=$1
    shift
    if has_systemd; then
        systemctl reset-failed "$unit" 2>/dev/null
        systemd-run --quiet --collect --no-ask-password --service-type=exec --unit="$unit" "$@"
    else
        while [ "$1" != -- ]; do shift; done
        shift
        ! alive "$unit" || { echo "Unit $unit was already loaded" && return 1; }
        setsid "$@" </dev/null >/dev/null 2>&1 9>&- &
        echo $! >"$here/$unit.pid"
    fi
}

alive() { # of what `detached` started without systemd
    noted "$here/$1.pid"
    [ -n "$line" ] && kill -0 "$line" 2>/dev/null
}

failed_since() { units_failed | comm -13 "$dir/failed-before" -; }
jobs_queued() { ! has_systemd || systemctl list-jobs --plain --no-legend --full 2>/dev/null | awk 'NF >= 4 {print $2, $3, $4, $1}' | sort; }
jobs_since() { # unit, verb, state and number of the jobs that the activation may have queued
    jobs_queued | grep -v -e "^$activation " -e '^nixherd-' | while read -r unit verb state number; do
        grep -q "^$unit $verb " "$dir/jobs-before" || by_itself "$unit" || echo "$unit $verb $state $number"
    done
}
by_itself() { # a unit that is alike in both systems and that a timer, say, has started meanwhile
    [ -n "$(systemctl show -p TriggeredBy --value "$1")" ] || return 1
    ours=etc/systemd/system/$1
    if [ -e "$old/$ours" ] || [ -e "$target/$ours" ]; then cmp -s "$old/$ours" "$target/$ours"; fi
}
blocking() { jobs_since | awk '$3 == "running" {print $1}' | list; } # units whose start or stop does not end

# Beginning ----------------------------------------------------------------------------------------------------------

begin() { # PROTOCOL ID WHO GOAL SYSTEM SPECIALISATION DEADLINE CONFIRM GENERATION REBOOT CHECKS
    [ "$1" = $protocol ] ||
        fail "the program there speaks version $protocol of the protocol, and was asked in another: update nixherd where you deploy from"
    shift
    [ $# = 10 ] || fail 'these are not the words for it'
    case $1 in */* | '') fail "$1 names no deployment" ;; esac
    case ${9:--}${10:--} in -- | reboot- | -unchecked | rebootunchecked) ;; *) fail "$9 ${10} are no words for it" ;; esac
    exec 9<"${here%/*}"
    flock -w 20 9 || fail 'another deployment is beginning'
    if recent && [ "$id" != "$1" ]; then
        if under_way; then
            echo "busy=$who"
            report
            exit 0
        fi
        # its process is gone for good: what it recorded is still where to go back to
        case $stands in lost | stuck) recorded=$old ;; esac
        [ "$stands" != stuck ] || stop_watching
    fi
    [ "$kind" = home ] || refuse_foreign
    case $3 in switch | test | boot) ;; *) fail "$3 is nothing to come to" ;; esac
    number "$6" 86400 && number "$7" 86400 || fail "$6 and $7 are no seconds"
    case $4 in /nix/store/*/* | /nix/store/.*) fail "$4 is no store path" ;; /nix/store/*) ;; *) fail "$4 is no store path" ;; esac
    specialisation=${5#-} generation=${8#-} reboot=${9#-} checks=${10#-} # a forced command has no empty words
    id=$1 who=$2 goal=$3 new=$4 target=$4${specialisation:+/specialisation/$specialisation} dir=$here/$1
    old=${recorded:-$(readlink -f "$live")} || old=
    [ -e "$old" ] || old= # a home that was never activated
    if [ "$kind" = system ]; then
        [ -n "$old" ] || fail 'nothing runs here that could be gone back to: /run/current-system is missing'
        [ -x "$target/bin/switch-to-configuration" ] || fail "$target has no bin/switch-to-configuration: it is no NixOS system"
    else
        [ -x "$target/activate" ] || fail "$target has no activate: it is no generation of Home Manager"
    fi
    [ -z "$generation" ] || said=$(require_generation) || fail "$said"
    nix-store --verify-path "$new" >/dev/null 2>&1 ||
        fail "$new is damaged in its store; say \`nix store delete --ignore-liveness $new\` there and deploy again"
    said=$(reserve 2>&1)
    ! has_systemd || [ "$(left_in_run)" -ge $spare ] ||
        fail "/run is full there: going back needs $spare KiB of it, and $(left_in_run) are left; make room and deploy again"
    mkdir -p "$dir" || fail "$here cannot be written"
    [ -z "$said" ] || printf '%s\n' "$said" >"$dir/log"
    units_failed >"$dir/failed-before"
    running=$(units_running) was=$(readlink -f "$profile")
    printf '%s\n' "$running" >"$dir/running-before"
    jobs_queued >"$dir/jobs-before"
    newest_generation
    write "$dir/settings" "who='$who' goal='$goal' new='$new' target='$target' old='$old' deadline='$6' confirm='$7'
        generation='$generation' before='$(readlink "$profile")' was='$was' newest='$newest'
        reboot='$reboot' checks='$checks'" || fail "$here cannot be written"
    hold || fail "$roots cannot be written"
    enter armed
    set --
    for other in "$here"/*/; do [ "${other%/}" = "$dir" ] || set -- "$@" "${other%/}"; done
    [ $# = 0 ] || rm -rf "$@"
    ln -sfn "$id" "$here/current"
    cp "$0" "$dir/program"
    if ! said=$(detached "nixherd-deploy-$id.service" -p Restart=on-failure -p RestartSec=1 -p OOMScoreAdjust=-900 \
        -- /bin/sh "$dir/program" "$kind" watch "$id" 2>&1); then
        enter refused "the watching process cannot be started: $said"
        rm -f "$room"
    fi
    exec 9>&-
    look armed 5
}

number() { # a word is one, up to $2: the shell would take 08 for an octal one, and one that is too long for another
    case $1 in '' | *[!0-9]* | 0?* | ??????????*) return 1 ;; esac
    [ "$1" -le "$2" ]
}

require_generation() { # of the profile, which has to lead to what is proven; why not
    number "$generation" 999999999 || { echo "$generation is no generation" && return 1; }
    [ "$(readlink -f "$profile-$generation-link")" = "$new" ] ||
        { echo "generation $generation is not $new" && return 1; }
}

refuse_foreign() { # activations: what they have queued would be taken for ours
    look_at_units
    foreign=$(echo "$at_work" | grep -x "$activation") || foreign=$(switching)
    [ -z "$foreign" ] || fail "another activation is under way here ($foreign); wait for its end, or end it there"
}

newest_generation() { # of the profile: its number into $newest
    newest=0
    for link in "$profile"-*-link; do
        number_of "$link"
        [ "$n" -le "$newest" ] || newest=$n
    done
}

number_of() { # PROFILE-NUMBER-link: its number into $n, 0 where there is none
    n=${1%-link}
    n=${n##*-}
    case $n in '' | *[!0-9]*) n=0 ;; esac
}

hold() { # what runs and what is to run is no garbage until the end
    [ -d "$roots" ] || mkdir -p "$roots" || return 1
    for each in new old; do
        [ $each = new ] && path=$new || path=$old
        if [ "$kind" = system ]; then
            ln -sfn "$path" "$roots/$each" || return 1
        elif [ -n "$path" ]; then
            nix-store --realise "$path" --add-root "$roots/$each" >/dev/null 2>&1 || return 1
        fi
    done
}

watched() { # whether the process that watches this deployment lives
    unit=nixherd-deploy-$id.service
    has_systemd || { alive "$unit" && return; }
    case $(systemctl show -p ActiveState --value "$unit" 2>/dev/null) in
    active | activating | reloading | deactivating) return 0 ;;
    esac
    return 1
}

stop_watching() { # one that is stuck, and goes on trying
    if has_systemd; then
        systemctl stop "nixherd-deploy-$id.service"
    elif alive "nixherd-deploy-$id.service"; then
        kill -KILL -"$line"
    fi
}

under_way() { # whether it goes on; $stands is how it stands then, `lost` where its process ended before it did
    state
    within "$busy" || return 1
    watched && return 0
    seen=$stands
    state # it may have come to its end between the two looks
    [ "$stands" != "$seen" ] || stands=lost
    return 1
}

fail() {
    tell refused "$*"
    exit 0
}

