# How a deployment ends, a part of machine.sh: the new system is kept, or the old one is activated again, which needs
# free space.

# Free space: what is recorded here has its own file system, or else a file that can be deleted; /run, where the old
# system is activated again, has a reserve, and is enlarged if that is not enough.

reserve() {
    if [ "$kind" = system ] && ! grep -q " $here " /proc/self/mountinfo; then
        mkdir -p "$here" && mount -t tmpfs -o size=4m,mode=0700 nixherd "$here" || echo "$here cannot get a file system of its own"
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
    # it is memory: a program that fills it without end must not get all of it
    [ "${enlarged:-0}" -lt 4 ] || return 0
    enlarged=$((${enlarged:-0} + 1))
    echo '/run is full and is enlarged'
    mount -o "remount,size=$(($(df -Pk /run | awk 'NR == 2 {print $2}') + 2 * spare))k" /run
}

keep() {
    enter keeping
    if [ "$kind" = home ]; then
        [ "$(readlink -f "$live")" = "$new" ] || set_profile || go_back 'the profile cannot be set'
    elif [ "$goal" != test ]; then
        [ "$before" = "$(readlink "$profile")" ] || [ "$(readlink -f "$profile")" = "$new" ] ||
            write "$dir/moved" "$(readlink -f "$profile")"
        if ! output=$(set_profile 2>&1); then
            take_back "the profile cannot be set: $(echo "$output" | tail -n 1)"
        elif ! boot_entry "$new"; then
            take_back "the boot entry cannot be written: $(tail -n 1 "$dir/log")"
        fi
        sync -f "$profile" 2>/dev/null
    fi
    note_failing
    note_kept
    enter kept
    rm -f "$roots/new" "$roots/old" "$room"
    exit 0
}

note_kept() { # its revision; a good system is kept even without space for this
    set -- "$new"
    [ "$target" = "$new" ] || set -- "$new" "$(readlink -f "$target")"
    if ! output=$( (flock -w 20 9 && note_revision "$revision" "$who" "$id" "$@") 2>&1 9<"${here%/*}"); then
        write "$dir/unnoted" "$(echo "${output:-another deployment is beginning}" | tail -n 1)"
    fi
}

note_failing() { # for later checks of the machine: what fails, and was kept nevertheless
    has_systemd && [ "$goal" != boot ] || return 0
    noted_at=${kept_failing%/*} # others record theirs in this directory, too, readable by root only
    (umask 022 && mkdir -p "$noted_at" && chmod 0755 "$noted_at" && write "$kept_failing" "$(units_failed)") ||
        echo 'the failing units cannot be recorded'
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

boot_entry() { # system; waits for an activation that is under way elsewhere
    for try in 1 2 3 4 5; do
        NIXOS_NO_CHECK=${checks:+1} NIXOS_INSTALL_BOOTLOADER='' timeout 300 "$1/bin/switch-to-configuration" boot && return 0
        [ $try = 5 ] || ! tail -n 1 "$dir/log" | grep -qi lock || { sleep 2 && continue; }
        return 1
    done
}

take_back() { # why: restore the profile and the boot entries
    write "$dir/why" "$1"
    put_back_profile
    checks=unchecked
    boot_entry "$(readlink -f "$profile")" || echo 'the boot entries may name a generation that no longer exists'
    [ "$goal" != boot ] || finish
    go_back "$1"
}

put_back_profile() { # to the previous generation, if it leads to our system; generations created since are removed
    [ -n "$before" ] && [ "$before" != "$(readlink "$profile")" ] || return 0
    [ "$kind" = home ] || [ "$(readlink -f "$profile")" = "$new" ] || return 0
    number_of "$before"
    nix-env --profile "$profile" --switch-generation "$n" || ln -sfn "$before" "$profile"
    [ -z "$generation" ] || return 0 # none was created
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
    [ "$kind" = system ] || [ "$(readlink -f "$live")" != "$old" ] || put_back_profile # each activation of a home creates one
    finish
}

activate_old() { # and return whether it runs then, as far as it did before
    rm -f "$dir/back"
    : >"$dir/back.log"
    process=
    if ! output=$(run_activation "$old" back unchecked); then
        printf '%s\n' "$output" | tee -a "$dir/back.log"
        # without systemd, when PID 1 starts nothing any more
        setsid /bin/sh "$dir/program" "$kind" alone "$old" "$dir/back" </dev/null >/dev/null 2>&1 9<&- &
        process=$!
    fi
    clock
    end=$((now + deadline + 2 * grace))
    while [ ! -e "$dir/back" ] && [ "$now" -lt "$end" ] && activating "$process"; do
        rest
        clock
    done
    # it may fail like before, and there may have been no space to record its end; 3 is systemd, which still has the
    # other system's units then
    case $(cat "$dir/back" 2>/dev/null) in
    'exit-code 3') ;;
    'success '* | 'exit-code '*) [ "$(readlink -f "$live")" != "$old" ] || return 0 ;;
    '') [ "$(readlink -f "$live")" != "$old" ] || activating "$process" || return 0 ;;
    esac
    [ -z "$process" ] || kill -KILL -"$process" 2>/dev/null
    stop_activation
    return 1
}

activating() { # its process, if we started it: whether an activation is running
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
    put_back_files
    enter reverted
    rm -f "$roots/new" "$roots/old" "$room"
    exit 0
}

noted_stuck() { # the obstacle
    output=$(tail -n 1 "$dir/back.log")
    write "$dir/stuck" "${output:-the old system cannot be activated}$(has_systemd && [ "$(left_in_run)" -lt $spare ] && echo "; /run has $(left_in_run) KiB left")"
}

boot_old() { # the last resort: reboot into the previous system, as long as nobody has changed what boots
    [ "$reboot" = reboot ] && has_systemd && [ "$(readlink -f "$profile")" = "$old" ] || return 0
    write "$dir/why" "$(cat "$dir/why"); nothing else brings back what ran before, so it reboots"
    sync
    for force in '' --force '--force --force'; do
        # shellcheck disable=SC2086
        systemctl reboot $force
        sleep 60
    done
}

go_on_trying() { # with the space that may have become free
    again=15
    while :; do
        sleep $again
        [ $again -ge 300 ] || again=$((again * 2))
        make_room
        ! activate_old || went_back
        noted_stuck
    done
}

stop_activation() { # and the jobs that it left to PID 1
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

