# The part of machine.sh for a deployment in progress: activate the system or the home, wait for the deployer's decision,
# and report the state on request.

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
    note_files
    if ! output=$(run_activation "$target" forth "$checks"); then
        case $output in
        *already*) refuse "another activation is under way here: $output" ;;
        *) refuse "it cannot be activated: $output" ;;
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
    'success '*) read_back_files ;;
    'exit-code 4')
        sleep 1 # a unit in a restart loop has failed by then
        since=$(failed_since)
        broken=$(echo "$since" | that_count | list)
        # units that failed before may fail again, and those that do not count may fail now
        [ -z "$broken" ] && { [ -s "$dir/failed-before" ] || [ -n "$since" ]; } ||
            go_back "units failed${broken:+: $broken} (status 4)"
        ;;
    'exit-code '*)
        says_no
        names_files
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

says_no() { # whether the new system itself refuses before it changes anything; it may require a boot
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

run_activation() { # system, name for its log and its end (`RESULT CODE`, written by the unit itself), `unchecked`
    ended="$dir/$2"
    NIXOS_NO_CHECK=${3:+1}
    export NIXOS_NO_CHECK
    if has_systemd; then
        # a collected unit reports nothing any more, and an unknown one reports success
        detached "$activation" -E LOCALE_ARCHIVE -E NIXOS_INSTALL_BOOTLOADER= -E NIXOS_NO_CHECK \
            -p RuntimeMaxSec=$((deadline + grace)) -p TimeoutStopSec=$grace \
            -p "StandardOutput=append:$ended.log" -p "StandardError=append:$ended.log" \
            -p "ExecStopPost=/bin/sh -c 'echo \$SERVICE_RESULT \$EXIT_STATUS >$ended.new; mv $ended.new $ended'" \
            -- "$1/bin/switch-to-configuration" test 2>&1
    else
        if [ -n "$backup" ]; then
            export HOME_MANAGER_BACKUP_EXT="$backup"
            unset HOME_MANAGER_BACKUP_COMMAND HOME_MANAGER_BACKUP_OVERWRITE # which would make something else of the files
        fi
        detached "$activation" -- /bin/sh "$dir/program" "$kind" alone "$1" "$ended" 2>&1
    fi
}

alone() { # system, file for its end: where systemd does not run it
    exec >>"$2.log" 2>&1
    switch "$1"
    code=$?
    [ $code = 0 ] && result=success || result=exit-code
    write "$2" "$result $code"
}

# A home's files: Home Manager refuses to replace what is not its link, or moves it to FILE.BACKUP.

note_files() { # before the activation: those that it is to move
    [ -n "$backup" ] && [ -d "$target/home-files" ] || return 0
    (cd "$target/home-files/" && find . -type f -o -type l) | while IFS= read -r file; do
        file=$HOME/${file#./}
        [ ! -e "$file" ] || [ -L "$file" ] || [ -e "$file.$backup" ] || printf '%s\n' "$file"
    done >"$dir/to-move"
}

read_back_files() { # after the activation: into `backed_up`; what it did not move is there still
    [ -s "$dir/to-move" ] || return 0
    while IFS= read -r file; do
        if [ -e "$file.$backup" ]; then
            printf '%s\n' "$file.$backup"
        elif [ ! -e "$file" ] || [ -L "$file" ]; then
            write "$dir/lost" "$file"
        fi
    done <"$dir/to-move" >"$dir/backed_up"
    noted "$dir/lost"
    [ -z "$line" ] || go_back "$line was in the way, and $line.$backup does not exist"
}

names_files() { # those that it refuses to replace, before it changes anything, in the words of its newer and older versions
    [ "$kind" = home ] || return 0
    [ "$(readlink -e "$live")" = "$old" ] || return 0
    sed -n "s/^.*Existing file '\(.*\)' would be clobbered by backing up '.*'.*\$/\1/p; t
        s/^.*Existing file '\(.*\)' would be clobbered.*\$/\1/p; t
        s/^.*Existing file '\(.*\)' is in the way\( of '[^']*'\)\{0,1\}\.\{0,1\}\$/\1/p" "$dir/forth.log" >"$dir/in_the_way"
    [ ! -s "$dir/in_the_way" ] || refuse 'files are in the way'
}

put_back_files() { # once the old generation is there again; into `backed_up` those that could not be
    [ -s "$dir/to-move" ] || return 0
    while IFS= read -r file; do
        [ -e "$file.$backup" ] || continue
        [ ! -L "$file" ] || rm -f "$file"
        [ -e "$file" ] || mv "$file.$backup" "$file"
        [ ! -e "$file.$backup" ] || printf '%s\n' "$file.$backup"
    done <"$dir/to-move" >"$dir/backed_up"
}

prove() { # until the decision arrives; none in time means `back`
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
            # the deadline needs no file: it applies even if it cannot be recorded
            [ -s "$dir/word" ] || go_back "$why"
        fi
        rest
    done
    read -r decision why <"$dir/word"
    if [ "$decision" = keep ]; then keep; else go_back "$why"; fi
}

word() { # ID keep|back WHY…: the first one counts, written atomically
    decision=$2
    shift 2
    printf '%s %s\n' "$decision" "$*" >"$dir/word.$$" && ln "$dir/word.$$" "$dir/word" 2>/dev/null
    rm -f "$dir/word.$$"
}

# Reporting----------------------------------------------------------------------------------------------------------

look() { # STATES WAIT: report as soon as it is in none of these
    number "$2" 60 || fail "$2 must be seconds up to 60"
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

report() { # STATES that are known: until the next state only the essentials are reported
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
    for note in inhibited stuck moved unnoted; do
        noted "$dir/$note"
        tell $note "$line"
    done
    for files in in_the_way backed_up; do
        [ ! -s "$dir/$files" ] || sed "s/^/$files=/" "$dir/$files"
    done
    noted_of "$new"
    [ "$stands" != kept ] || tell kept_as "$noted"
    tell_what_runs
    [ "$stands" = stuck ] && log=$dir/back.log || log=$dir/forth.log
    [ ! -s "$log" ] || tail -n 20 "$log" | sed 's/^/log=/'
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
    noted_of "$(readlink -f "$live")"
    tell noted "$noted"
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

