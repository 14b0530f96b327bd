# One deployment on this machine, from beginning to end, in a process that depends on no connection; units.sh,
# revisions.sh, ends.sh and watching.sh precede this. The first argument is what is deployed: a `system`, as root, or
# a `home`, as its user. Then:
#
#   begin PROTOCOL ID WHO GOAL SYSTEM SPECIALISATION DEADLINE CONFIRM GENERATION REBOOT CHECKS REVISION [BACKUP]
#                       start `watch` detached, unless another deployment is under way; GENERATION is the number of
#                       a system that is a generation already; `reboot` allows a reboot as the last resort;
#                       `unchecked` ignores the new system's checks before a switch; the revision is recorded when
#                       the system is kept; a home has BACKUP, the extension of files that are moved out of the way
#   note PROTOCOL ID WHO SYSTEM SPECIALISATION REVISION
#                       record the revision of what runs or boots already; nothing is activated
#   watch ID            activate; wait for the decision; keep, or roll back
#   say ID WORD [WHY]   the deployer's decision, `keep` or `back`; only the first one counts
#   look ID STATE WAIT  report as soon as the state is not STATE, or after that many seconds
#   last                report the last deployment since the boot, and what runs
#
# It is sent with each deployment and never installed on a machine. A reboot ends a deployment, and the machine boots
# what it would have booted before: only `keep` changes a system's profile and boot entry. States: armed, activating,
# proving, keeping, reverting; kept, reverted, refused and stuck are final, but a stuck one keeps trying. Every answer
# names the protocol's version, which the deployer may support or not.
set -u
protocol=3
kind=$1
shift
grace=10 # seconds that a unit may take to stop
busy='armed activating proving keeping reverting' # states of a deployment in progress
spare=20480 # KiB in /run; below it systemd (16 MiB) cannot reload
export LC_ALL=C
if [ "$kind" = system ]; then
    here=/run/nixherd/deploy
    roots=/nix/var/nix/gcroots/nixherd
    profile=/nix/var/nix/profiles/system
    live=/run/current-system # what runs
    room=/run/nixherd/room # space that can be given up when it is needed
    activation=nixos-rebuild-switch-to-configuration.service # nixos-rebuild's name: the two exclude each other
    export PATH=/run/current-system/sw/bin:/run/wrappers/bin:/usr/bin:/usr/sbin:/bin:/sbin
else
    # /run is removed with the user's last session; a different boot has a different name
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
    was='' reboot='' checks='' revision=- backup='' # older programs do not record it
    # shellcheck disable=SC1091
    . "$dir/settings"
    # the old system has what the new one might lack
    [ "$kind" = home ] || PATH=$old/sw/bin:$PATH
    if [ -r "$dir/running-before" ]; then running=$(cat "$dir/running-before"); else running=$(units_running); fi
}

recent() { [ -e "$here/current" ] && load "$(readlink "$here/current")"; } # the last deployment since the boot

write() { # file, text: atomically
    printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"
}

state() { # into $stands, without another process: it is called often
    stands=none
    [ ! -r "$dir/state" ] || while read -r line; do stands=$line; done <"$dir/state"
}

noted() { # file: its first line into $line
    line=
    [ ! -r "$1" ] || read -r line <"$1"
}

rest() { # between two polls, with increasing pauses
    sleep "${pause:=0.02}"
    case $pause in 0.02) pause=0.03 ;; 0.03) pause=0.05 ;; 0.05) pause=0.1 ;; 0.1) pause=0.2 ;; *) pause=0.4 ;; esac
}

enter() { # state, why: the reason is written first, so that it is there with the state; a full disk must not stop us
    [ -z "${2:-}" ] || [ -s "$dir/why" ] || printf '%s\n' "$2" >"$dir/why"
    printf '%s\n' "$1" >>"$dir/state" || { rm -f "$room" && printf '\n%s\n' "$1" >>"$dir/state"; }
}

clock() { # seconds since the boot, including suspends, independent of the time of day
    read -r now _ </proc/uptime
    now=${now%.*}
}

switch() { # system: activate it on this machine, or in this home
    if [ "$kind" = system ]; then set -- "$1/bin/switch-to-configuration" test; else set -- "$1/activate"; fi
    "$@"
}

detached() { # unit, properties… -- command…: start it outside of every session
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

alive() { # a process that `detached` started without systemd
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
by_itself() { # a unit that is the same in both systems, and that a timer, for example, has started in the meantime
    [ -n "$(systemctl show -p TriggeredBy --value "$1")" ] || return 1
    ours=etc/systemd/system/$1
    if [ -e "$old/$ours" ] || [ -e "$target/$ours" ]; then cmp -s "$old/$ours" "$target/$ours"; fi
}
blocking() { jobs_since | awk '$3 == "running" {print $1}' | list; } # units whose start or stop does not end

# Beginning ----------------------------------------------------------------------------------------------------------

begin() { # PROTOCOL ID WHO GOAL SYSTEM SPECIALISATION DEADLINE CONFIRM GENERATION REBOOT CHECKS REVISION [BACKUP]
    [ "$kind" = home ] && words=12 || words=11
    require_words "$1" $words $(($# - 1)) "${2:-}"
    shift
    case ${9:--}${10:--} in -- | reboot- | -unchecked | rebootunchecked) ;; *) fail "$9 ${10} are unknown options" ;; esac
    is_revision "${11:--}" || fail "${11} is not a revision"
    turn
    if recent && [ "$id" != "$1" ]; then
        ! under_way || tell_busy
        # its process has ended for good: what it recorded is still the system to go back to
        case $stands in lost | stuck) recorded=$old ;; esac
        [ "$stands" != stuck ] || stop_watching
    fi
    [ "$kind" = home ] || refuse_foreign
    if not_now; then
        tell held "$line"
        fail 'it is held'
    fi
    case $3 in switch | test | boot) ;; *) fail "$3 is not a goal: switch, test or boot" ;; esac
    number "$6" 86400 && number "$7" 86400 || fail "$6 and $7 must be seconds up to 86400"
    require_store_path "$4"
    specialisation=${5#-} generation=${8#-} reboot=${9#-} checks=${10#-} revision=${11:--} # a forced command has no empty arguments
    backup=${12:-}
    id=$1 who=$2 goal=$3 new=$4 target=$4${specialisation:+/specialisation/$specialisation} dir=$here/$1
    old=${recorded:-$(readlink -f "$live")} || old=
    [ -e "$old" ] || old= # a home that was never activated
    if [ "$kind" = system ]; then
        [ -n "$old" ] || fail 'a rollback would be impossible: /run/current-system is missing'
        [ -x "$target/bin/switch-to-configuration" ] || fail "$target has no bin/switch-to-configuration: it is not a NixOS system"
    else
        [ -x "$target/activate" ] || fail "$target has no activate: it is not a generation of Home Manager"
    fi
    [ -z "$generation" ] || output=$(require_generation) || fail "$output"
    nix-store --verify-path "$new" >/dev/null 2>&1 ||
        fail "$new is damaged in its store; run \`nix store delete --ignore-liveness $new\` on the machine and deploy again"
    output=$(reserve 2>&1)
    ! has_systemd || [ "$(left_in_run)" -ge $spare ] ||
        fail "/run is full on the machine: a rollback needs $spare KiB, $(left_in_run) are free; free space and deploy again"
    mkdir -p "$dir" || fail "$here cannot be written"
    [ -z "$output" ] || printf '%s\n' "$output" >"$dir/log"
    units_failed >"$dir/failed-before"
    running=$(units_running) was=$(readlink -f "$profile")
    printf '%s\n' "$running" >"$dir/running-before"
    jobs_queued >"$dir/jobs-before"
    newest_generation
    write "$dir/settings" "who='$who' goal='$goal' new='$new' target='$target' old='$old' deadline='$6' confirm='$7'
        generation='$generation' before='$(readlink "$profile")' was='$was' newest='$newest'
        reboot='$reboot' checks='$checks' revision='$revision' backup='$backup'" || fail "$here cannot be written"
    hold || fail "$roots cannot be written"
    enter armed
    set --
    for other in "$here"/*/; do [ "${other%/}" = "$dir" ] || set -- "$@" "${other%/}"; done
    [ $# = 0 ] || rm -rf "$@"
    ln -sfn "$id" "$here/current"
    cp "$0" "$dir/program"
    if ! output=$(detached "nixherd-deploy-$id.service" -p Restart=on-failure -p RestartSec=1 -p OOMScoreAdjust=-900 \
        -- /bin/sh "$dir/program" "$kind" watch "$id" 2>&1); then
        enter refused "the watching process cannot be started: $output"
        rm -f "$room"
    fi
    exec 9>&-
    look armed 5
}

note() { # PROTOCOL ID WHO SYSTEM SPECIALISATION REVISION: of a system that runs or boots already
    require_words "$1" 5 $(($# - 1)) "${2:-}"
    is_revision "$6" || fail "$6 is not a revision"
    require_store_path "$4"
    turn
    if recent && under_way; then tell_busy; fi
    [ "$kind" = home ] || refuse_foreign
    target=$4
    [ -z "${5#-}" ] || target=$(readlink -e "$4/specialisation/$5") || fail "$4 has no specialisation $5"
    runs=$(readlink -f "$live") boots=$(readlink -f "$profile")
    case $target in "$runs" | "$boots") ;; *) fail "it runs $runs and boots $boots, not $target; nothing was noted" ;; esac
    system=$4
    set -- "$6" "$3" "$2" "$4" "$target"
    [ "$4" != "$5" ] || set -- "$1" "$2" "$3" "$4"
    output=$(note_revision "$@" 2>&1) || fail "the revision is not noted: $(echo "$output" | tail -n 1)"
    tell new "$system"
    noted_of "$system"
    tell kept_as "$noted"
    nothing
}

require_words() { # protocol, expected number of arguments after it, actual number, the id
    [ "$1" = $protocol ] ||
        fail "the machine's program uses version $protocol of the protocol, the request another: update nixherd on the controller"
    [ "$2" = "$3" ] || fail 'wrong number of arguments'
    case $4 in */* | '') fail "$4 is not the id of a deployment" ;; esac
}

require_store_path() {
    case $1 in /nix/store/*/* | /nix/store/.*) fail "$1 is not a store path" ;; /nix/store/*) ;; *) fail "$1 is not a store path" ;; esac
}

turn() { # one at a time may begin or record something
    exec 9<"${here%/*}"
    flock -w 20 9 || fail 'another deployment is beginning'
}

tell_busy() { # report who deploys here
    echo "busy=$who"
    report
    exit 0
}

number() { # a number up to $2: the shell would read 08 as octal, and a number that is too long as another one
    case $1 in '' | *[!0-9]* | 0?* | ??????????*) return 1 ;; esac
    [ "$1" -le "$2" ]
}

require_generation() { # of the profile: it must lead to the verified system; prints why not
    number "$generation" 999999999 || { echo "$generation is not a generation" && return 1; }
    [ "$(readlink -f "$profile-$generation-link")" = "$new" ] ||
        { echo "generation $generation is not $new" && return 1; }
}

refuse_foreign() { # foreign activations: their queued jobs would be taken for ours
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

number_of() { # PROFILE-NUMBER-link: its number into $n, 0 without one
    n=${1%-link}
    n=${n##*-}
    case $n in '' | *[!0-9]*) n=0 ;; esac
}

hold() { # protect the running and the new system from the garbage collector until the end
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

watched() { # whether the process that watches this deployment is alive
    unit=nixherd-deploy-$id.service
    has_systemd || { alive "$unit" && return; }
    case $(systemctl show -p ActiveState --value "$unit" 2>/dev/null) in
    active | activating | reloading | deactivating) return 0 ;;
    esac
    return 1
}

stop_watching() { # a stuck deployment, which keeps trying
    if has_systemd; then
        systemctl stop "nixherd-deploy-$id.service"
    elif alive "nixherd-deploy-$id.service"; then
        kill -KILL -"$line"
    fi
}

under_way() { # whether it is in progress; $stands is its state, `lost` if its process ended before it did
    state
    within "$busy" || return 1
    watched && return 0
    seen=$stands
    state # it may have ended between the two reads
    [ "$stands" != "$seen" ] || stands=lost
    return 1
}

fail() {
    tell refused "$*"
    exit 0
}

[ -d "$here" ] || mkdir -p -m 0700 "$here"
verb=$1
shift
# The arguments of a forced command are untrusted; only the reason after `back` is free text.
case $verb in say) checked="$1 $2" ;; *) checked=$* ;; esac
case $checked in *[!A-Za-z0-9@._:+/\ -]* | .* | *../*) fail 'the arguments contain characters that are not allowed' ;; esac
case ${1:-} in */*) [ "$verb" = alone ] || fail "$1 is not the id of a deployment" ;; esac
case $verb in watch | alone) ;; *) tell protocol $protocol ;; esac
case $verb in
begin) begin "$@" ;;
note) note "$@" ;;
watch) load "$1" && watch ;;
alone) alone "$@" ;;
last) if recent; then report; else nothing; fi ;;
say) if load "$1"; then word "$@"; state; look "$stands keeping" 5; else nothing; fi ;;
look) if load "$1"; then look "$2" "$3"; else nothing; fi ;;
esac
