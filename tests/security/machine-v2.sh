# What is known of systemd's units: the first part of machine.sh, and of what is asked of a machine before anything is
# deployed. $kind is `system` where they count.

kept_failing=/var/lib/nixherd/failing # those that failed when the last deployment was kept, all the same

has_systemd() { [ "$kind" = system ] && [ -d /run/systemd/system ]; } # a user may have one that ends with the session
list() { tr '\n' ' ' | sed 's/ *$//; s/ /, /g'; }

look_at_units() { # names, a line each: those that have failed into $failing, that run into $running, that activate into $at_work
    units=$(has_systemd && systemctl list-units --plain --no-legend --full \
        --state=failed,auto-restart,active,reloading,activating,deactivating 2>/dev/null)
    failing=$(echo "$units" | awk '$3 == "failed" || $4 == "auto-restart" {print $1}')
    running=$(echo "$units" | awk '$3 == "active" || $3 == "reloading" {print $1}')
    at_work=$(echo "$units" | awk '$3 != "failed" && $1 ~ /^(nixos-rebuild-switch-to-configuration|nixherd-deploy-.*)[.]service$/ {print $1}')
}
switching() { # a switch that was started as no unit: it holds a lock, for which the kernel is asked; to try it is to take it
    lock=/run/nixos/switch-to-configuration.lock
    [ -e $lock ] && [ -r /proc/locks ] || return 0
    # shellcheck disable=SC2046
    set -- $(stat -c '%D %i' $lock)
    number=$((0x$1))
    number=$(printf '%02x:%02x' $((number >> 8 & 0xfff)) $((number & 0xff | number >> 12 & 0xfff00)))
    ! grep -q "FLOCK.* $number:$2 " /proc/locks || echo switch-to-configuration
}
units_in() { ! has_systemd || systemctl list-units --state="$1" --plain --no-legend --full 2>/dev/null | cut -d" " -f1 | sort; }
units_failed() { units_in failed,auto-restart; }
units_running() { units_in active,reloading; }

# A failure counts when it is the system's: of a unit that ran ($running, a line each), or that something which ran wants.
# What an unprivileged user or a clock can make fail does not: sessions, connections, transient units, and what nothing
# but a timer, a socket, a path, a bus name or another failure has started.
unseen() { # of the failing units on stdin, those that the last deployment that was kept has not noted
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
    asked=' '
    case $(wanted "$1") in
    yes) return 0 ;;
    no) return 1 ;;
    esac
    # nothing wants it; unless something else may start it, whoever is at work here did
    [ -z "$(systemctl show -p TriggeredBy -p BusName --value -- "$1" 2>/dev/null)" ]
}

ran() { case "
$running
" in *"
$1
"*) return 0 ;; *) return 1 ;; esac; }

wanted() { # unit: `yes` where something that ran wants it, `no` where only others do; nothing where nobody does
    asked="$asked$1 "
    found=
    for each in $(systemctl show -p WantedBy -p RequiredBy -p RequisiteOf -p BoundBy -p UpheldBy -p OnFailureOf \
        -p OnSuccessOf --value -- "$1" 2>/dev/null); do
        found=no
        case $asked in *" $each "*) continue ;; esac
        if ran "$each" || [ "$(wanted "$each")" = yes ]; then
            echo yes
            return
        fi
    done
    echo $found
}
# How a deployment ends, the second part of machine.sh: the new system is kept, or the old one is activated again, for
# which there has to be room.

# Room: what is noted here has a file system of its own, which nobody else fills, or else a file that can go; /run, in
# which the old system is to be activated again, has a reserve, and is made larger where that is not enough.

reserve() {
    if [ "$kind" = system ] && ! grep -q " $here " /proc/self/mountinfo; then
        mkdir -p "$here" && mount -t tmpfs -o size=4m,mode=0700 nixherd "$here" || echo "$here cannot have its own room"
    fi
    if ! has_systemd; then
        head -c 65536 /dev/zero >"$room"
    elif [ "$(left_in_run)" -gt $((4 * spare)) ]; then
        fallocate -l "${spare}K" "$room" || rm -f "$room"
    fi
}

left_in_run() { df -Pk /run | awk 'NR == 2 {print $4}'; } # KiB

make_room() {
    rm -f "$room"
    has_systemd && [ "$(left_in_run)" -lt $spare ] || return 0
    # it is memory: what fills it without end is not to have all of that
    [ "${enlarged:-0}" -lt 4 ] || return 0
    enlarged=$((${enlarged:-0} + 1))
    echo '/run is full: it is made larger'
    mount -o "remount,size=$(($(df -Pk /run | awk 'NR == 2 {print $2}') + 2 * spare))k" /run
}

keep() {
    enter keeping
    if [ "$kind" = home ]; then
        [ "$(readlink -f "$live")" = "$new" ] || set_profile || go_back 'the profile cannot be set'
    elif [ "$goal" != test ]; then
        [ "$before" = "$(readlink "$profile")" ] || [ "$(readlink -f "$profile")" = "$new" ] ||
            write "$dir/moved" "$(readlink -f "$profile")"
        if ! said=$(set_profile 2>&1); then
            take_back "the profile cannot be set: $(echo "$said" | tail -n 1)"
        elif ! boot_entry "$new"; then
            take_back "the boot entry cannot be written: $(tail -n 1 "$dir/log")"
        fi
        sync -f "$profile" 2>/dev/null
    fi
    note_failing
    enter kept
    rm -f "$roots/new" "$roots/old" "$room"
    exit 0
}

note_failing() { # for whoever asks later whether all is well: what is known to fail, and was kept all the same
    has_systemd && [ "$goal" != boot ] || return 0
    noted_at=${kept_failing%/*} # others note what is theirs there, too, for root alone
    (umask 022 && mkdir -p "$noted_at" && chmod 0755 "$noted_at" && write "$kept_failing" "$(units_failed)") ||
        echo 'what fails cannot be noted'
}

set_profile() {
    if [ -n "$generation" ]; then
        require_generation || return 1
        set -- --switch-generation "$generation"
    else
        set -- --set "$new"
    fi
    nix-env --profile "$profile" "$@"
}

boot_entry() { # system; an activation that is under way elsewhere is waited for
    for try in 1 2 3 4 5; do
        NIXOS_NO_CHECK=${checks:+1} NIXOS_INSTALL_BOOTLOADER='' timeout 300 "$1/bin/switch-to-configuration" boot && return 0
        [ $try = 5 ] || ! tail -n 1 "$dir/log" | grep -qi lock || { sleep 2 && continue; }
        return 1
    done
}

take_back() { # why: the profile as it was, and what boots
    write "$dir/why" "$1"
    put_back_profile
    checks=unchecked
    boot_entry "$(readlink -f "$profile")" || echo 'the boot entries may name a generation that is gone'
    [ "$goal" != boot ] || finish
    go_back "$1"
}

put_back_profile() { # to the generation of before, if it leads to ours; those made for it since are removed
    [ -n "$before" ] && [ "$before" != "$(readlink "$profile")" ] || return 0
    [ "$kind" = home ] || [ "$(readlink -f "$profile")" = "$new" ] || return 0
    number_of "$before"
    nix-env --profile "$profile" --switch-generation "$n" || ln -sfn "$before" "$profile"
    [ -z "$generation" ] || return 0 # none was made
    for link in "$profile"-*-link; do
        number_of "$link"
        [ "$n" -le "$newest" ] || [ "$(readlink -f "$link")" != "$new" ] || nix-env --profile "$profile" --delete-generations "$n"
    done
}

go_back() { # why
    enter reverting "$1"
    make_room
    stop_activation
    [ -n "$old" ] || finish
    for try in 1 2 3; do
        ! activate_old || break
        make_room
        [ "$try" = 3 ] || sleep 2
    done
    [ "$kind" = system ] || [ "$(readlink -f "$live")" != "$old" ] || put_back_profile # each activation of a home makes one
    finish
}

activate_old() { # and whether it runs then, as far as it did before
    rm -f "$dir/back"
    : >"$dir/back.log"
    own=
    if ! said=$(run_activation "$old" back unchecked); then
        printf '%s\n' "$said" | tee -a "$dir/back.log"
        # by ourselves, where PID 1 starts nothing any more
        setsid /bin/sh "$dir/program" "$kind" alone "$old" "$dir/back" </dev/null >/dev/null 2>&1 9<&- &
        own=$!
    fi
    clock
    end=$((now + deadline + 2 * grace))
    while [ ! -e "$dir/back" ] && [ "$now" -lt "$end" ] && activating "$own"; do
        rest
        clock
    done
    # it may fail in what it failed in before, and its end may have had no room; 3 is systemd, which still has the
    # other system's units then
    case $(cat "$dir/back" 2>/dev/null) in
    'exit-code 3') ;;
    'success '* | 'exit-code '*) [ "$(readlink -f "$live")" != "$old" ] || return 0 ;;
    '') [ "$(readlink -f "$live")" != "$old" ] || activating "$own" || return 0 ;;
    esac
    [ -z "$own" ] || kill -KILL -"$own" 2>/dev/null
    stop_activation
    return 1
}

activating() { # process that does it, where that is one of ours: whether one is at work
    if [ -n "${1:-}" ]; then
        kill -0 "$1" 2>/dev/null
    elif has_systemd; then
        case $(systemctl show -p ActiveState --value "$activation" 2>/dev/null) in inactive | failed) return 1 ;; esac
    else
        alive "$activation"
    fi
}

finish() {
    runs=$(readlink -f "$live")
    [ -n "$old" ] || [ -e "$runs" ] || runs=
    if [ "$runs" = "$old" ] && ! grep -qs '^exit-code 3' "$dir/back"; then
        went_back
    fi
    noted_stuck
    boot_old
    enter stuck
    go_on_trying
}

went_back() {
    rm -f "$dir/stuck"
    enter reverted
    rm -f "$roots/new" "$roots/old" "$room"
    exit 0
}

noted_stuck() { # what is in the way
    said=$(tail -n 1 "$dir/back.log")
    write "$dir/stuck" "${said:-the old system cannot be activated}$(has_systemd && [ "$(left_in_run)" -lt $spare ] && echo "; /run has $(left_in_run) KiB left")"
}

boot_old() { # the last resort: what boots is what ran before, as long as nobody has made it another one
    [ "$reboot" = reboot ] && has_systemd && [ "$(readlink -f "$profile")" = "$old" ] || return 0
    write "$dir/why" "$(cat "$dir/why"); nothing else brings back what ran before, so it reboots"
    sync
    for force in '' --force '--force --force'; do
        # shellcheck disable=SC2086
        systemctl reboot $force
        sleep 60
    done
}

go_on_trying() { # with the room that somebody may have made meanwhile
    again=15
    while :; do
        sleep $again
        [ $again -ge 300 ] || again=$((again * 2))
        make_room
        ! activate_old || went_back
        noted_stuck
    done
}

stop_activation() { # and what it has left to PID 1
    if ! has_systemd; then
        ! alive "$activation" || kill -KILL -"$(cat "$here/$activation.pid")"
        return
    fi
    systemctl stop "$activation" 2>/dev/null
    jobs_since | while read -r unit verb state number; do
        if [ "$state" = running ] && [ "$verb" != stop ]; then
            systemctl stop --no-block "$unit"
        else
            systemctl cancel "$number"
        fi
    done
    clock
    end=$((now + grace))
    while [ -n "$(jobs_since)" ] && [ "$now" -lt "$end" ]; do
        sleep 0.2
        clock
    done
    jobs_since | while read -r unit _ _ number; do
        systemctl kill -s KILL "$unit"
        systemctl cancel "$number"
    done
}

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

# Watching -----------------------------------------------------------------------------------------------------------

watch() {
    exec >>"$dir/log" 2>&1 </dev/null
    state
    case $stands in
    armed) ;;
    keeping) keep ;;
    activating | proving | reverting) go_back 'the process that watched over it was killed' ;;
    stuck) go_on_trying ;;
    *) exit 0 ;;
    esac
    [ "$goal" != boot ] || { keep; exit 0; }
    activate
    prove
}

activate() {
    enter activating
    [ ! -e "$dir/forth" ] || rm -f "$dir/forth"
    if ! said=$(run_activation "$target" forth "$checks"); then
        case $said in
        *already*) refuse "another activation is under way here: $said" ;;
        *) refuse "it cannot be activated: $said" ;;
        esac
    fi
    clock
    end=$((now + deadline))
    while [ ! -e "$dir/forth" ]; do
        clock
        if [ -e "$dir/word" ]; then go_back "$(cut -s -d' ' -f2- "$dir/word")"; fi
        if [ "$now" -ge "$end" ]; then
            waits=$(blocking)
            go_back "the activation did not end within $deadline s${waits:+; it waits for $waits}"
        fi
        if [ "${pause:-}" = 0.4 ] && ! activating && [ ! -e "$dir/forth" ]; then
            go_back 'how the activation ended could not be noted'
        fi
        rest
    done
    read -r result code <"$dir/forth"
    case "$result $code" in
    'success '*) ;;
    'exit-code 4')
        sleep 1 # one that is started again and again has failed in the end
        since=$(failed_since)
        broken=$(echo "$since" | that_count | list)
        # what had failed before may do so again, and what does not count may do it now
        [ -z "$broken" ] && { [ -s "$dir/failed-before" ] || [ -n "$since" ]; } ||
            go_back "units failed${broken:+: $broken} (status 4)"
        ;;
    'exit-code '*)
        says_no
        go_back "the activation ended with status $code"
        ;;
    *) go_back "the activation was ended ($result $code)" ;;
    esac
}

refuse() { # why: nothing was changed
    enter refused "$1"
    rm -f "$roots/new" "$roots/old" "$room"
    exit 0
}

says_no() { # whether the new system itself does, before it changes anything; it may ask for a boot
    [ "$kind" = system ] && [ "$(readlink -f "$live")" = "$old" ] && [ "$old" != "$target" ] || return 0
    no=$(sed -n "s/^Pre-switch check '\(.*\)' failed\$/\1/p" "$dir/forth.log" | list)
    if [ "$no" = switchInhibitors ]; then
        for_boot=$(sed -n 's/^\([^ ]*\) : \(.*\) -> \(.*\)$/\1: \2 → \3/p' "$dir/forth.log" | sed '$!s/$/;/' | tr '\n' ' ' | sed 's/ $//')
    elif [ "$code" = 100 ]; then
        for_boot='another interface of init'
    else
        [ -z "$no" ] || refuse "the new system says no before it is switched to ($no); nothing was activated"
        return 0
    fi
    write "$dir/inhibited" "${for_boot:-what it calls critical}"
    refuse "it cannot be switched to while the old system runs: ${for_boot:-what it calls critical} (status $code)"
}

run_activation() { # system, name for its log and its end (`RESULT CODE`, which the unit itself writes), `unchecked`
    ended="$dir/$2"
    NIXOS_NO_CHECK=${3:+1}
    export NIXOS_NO_CHECK
    if has_systemd; then
        # a collected unit tells nothing any more, and one that is unknown says that all is well
        detached "$activation" -E LOCALE_ARCHIVE -E NIXOS_INSTALL_BOOTLOADER= -E NIXOS_NO_CHECK \
            -p RuntimeMaxSec=$((deadline + grace)) -p TimeoutStopSec=$grace \
            -p "StandardOutput=append:$ended.log" -p "StandardError=append:$ended.log" \
            -p "ExecStopPost=/bin/sh -c 'echo \$SERVICE_RESULT \$EXIT_STATUS >$ended.new; mv $ended.new $ended'" \
            -- "$1/bin/switch-to-configuration" test 2>&1
    else
        detached "$activation" -- /bin/sh "$dir/program" "$kind" alone "$1" "$ended" 2>&1
    fi
}

alone() { # system, file for its end: where no systemd runs it
    exec >>"$2.log" 2>&1
    switch "$1"
    code=$?
    [ $code = 0 ] && result=success || result=exit-code
    write "$2" "$result $code"
}

prove() { # until the word comes; who says nothing in time has said `back`
    clock
    end=$((now + confirm))
    echo $end >"$dir/until"
    pause=
    enter proving
    while [ ! -e "$dir/word" ]; do
        clock
        if [ "$now" -ge "$end" ]; then
            why="nobody confirmed it within $confirm s"
            word "$id" back "$why"
            # the deadline needs no file: what cannot be noted is done all the same
            [ -s "$dir/word" ] || go_back "$why"
        fi
        rest
    done
    read -r said why <"$dir/word"
    if [ "$said" = keep ]; then keep; else go_back "$why"; fi
}

word() { # ID keep|back WHY…: the first one counts, and is whole
    said=$2
    shift 2
    printf '%s %s\n' "$said" "$*" >"$dir/word.$$" && ln "$dir/word.$$" "$dir/word" 2>/dev/null
    rm -f "$dir/word.$$"
}

# Looking ------------------------------------------------------------------------------------------------------------

look() { # STATES WAIT: report as soon as it is in none of these
    number "$2" 60 || fail "$2 are no seconds to look"
    clock
    end=$((now + $2))
    state
    while within "$1" && within "$busy" && [ "$now" -lt "$end" ]; do
        rest
        clock
        state
    done
    report "$1"
}

within() { case " $1 " in *" $stands "*) return 0 ;; *) return 1 ;; esac; } # whether it is in one of these states

tell() { printf '%s=%s\n' "$1" "$2"; }

report() { # STATES that are known: who waits for the next one is told all of the proof and of an end alone
    under_way
    tell was "$was"
    tell id "$id"
    tell who "$who"
    tell state "$stands"
    noted "$dir/why"
    tell why "$line"
    tell new "$new"
    tell old "$old"
    clock
    noted "$dir/until"
    tell left "${line:+$((line - now))}"
    ! has_systemd || tell waits "$(blocking)"
    [ "${1:-none}" = none ] || ! within 'armed activating keeping reverting' || return 0
    if has_systemd; then
        since=$(failed_since)
        tell failed "$(echo "$since" | that_count | list)"
        tell aside "$(echo "$since" | that_do_not | list)"
    fi
    for note in inhibited stuck moved; do
        noted "$dir/$note"
        tell $note "$line"
    done
    tell_what_runs
    [ "$stands" = stuck ] && said=$dir/back.log || said=$dir/forth.log
    [ ! -s "$said" ] || tail -n 20 "$said" | sed 's/^/log=/'
}

tell_what_runs() {
    if [ "$kind" = system ]; then
        tell init "$(cat "$live/init-interface-version" 2>/dev/null)"
        tell inhibitors "$(tr '\n' ' ' <"$live/switch-inhibitors" 2>/dev/null)"
    fi
    if has_systemd; then
        look_at_units
        tell unwell "$(echo "$failing" | unseen | that_count | list)"
        [ -n "$at_work" ] || at_work=$(switching)
        tell at_work "$(echo "$at_work" | list)"
    fi
    tell current "$(readlink -f "$live")"
    tell profile "$(readlink -f "$profile")"
    read -r line </proc/sys/kernel/random/boot_id
    tell boot_id "$line"
    read -r line </proc/sys/kernel/hostname
    tell hostname "$line"
    tell version "$(/run/current-system/sw/bin/nixos-version --json 2>/dev/null)"
}

nothing() { # is known of such a deployment
    tell state none
    tell_what_runs
}

[ -d "$here" ] || mkdir -p -m 0700 "$here"
verb=$1
shift
# Whoever may run this by a forced command says what it likes; reasons alone, the words after `back`, are free.
case $verb in say) checked="$1 $2" ;; *) checked=$* ;; esac
case $checked in *[!A-Za-z0-9@._:+/\ -]* | .* | *../*) fail 'these are no words for it' ;; esac
case ${1:-} in */*) [ "$verb" = alone ] || fail "$1 names no deployment" ;; esac
case $verb in watch | alone) ;; *) tell protocol $protocol ;; esac
case $verb in
begin) begin "$@" ;;
watch) load "$1" && watch ;;
alone) alone "$@" ;;
last) if recent; then report; else nothing; fi ;;
say) if load "$1"; then word "$@"; state; look "$stands keeping" 5; else nothing; fi ;;
look) if load "$1"; then look "$2" "$3"; else nothing; fi ;;
esac
