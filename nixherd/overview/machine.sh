# What a machine says of itself beside what runs on it: the last part of the one script that `nixherd status` sends.
#
# $profile is where its generations are, $live what runs. Each line is NAME=VALUE. As few processes as can be: a
# hundred machines are asked at once, and some are small.

look_at_generation() { # the number of the generation that runs: the newest, where several lead to it
    generation=0
    for link in "$profile"-*-link; do
        [ "$link" -ef "$live" ] || continue
        n=${link%-link}
        n=${n##*-}
        case $n in '' | *[!0-9]* | ??????????*) continue ;; esac
        [ "$n" -le "$generation" ] || generation=$n
    done
    [ "$generation" = 0 ] || say generation "$generation"
}

look_at_kernels() { # the version that runs, and that of the next boot
    read -r line </proc/sys/kernel/osrelease && say kernel "$line"
    for each in "$profile"/kernel-modules/lib/modules/*; do
        [ ! -e "$each" ] || say next_kernel "${each##*/}"
    done
}

look_at_space() { # bytes of memory, and of file systems in units of 1,024
    while read -r name value _; do
        case $name in MemTotal:) say memory.total "$value" ;; MemAvailable:) say memory.available "$value" ;; esac
    done </proc/meminfo
    places=
    for each in / /boot /home /nix /nix/store /var; do [ ! -d "$each" ] || places="$places $each"; done
    # shellcheck disable=SC2086
    spaces=$(df -kP $places 2>/dev/null)
    while read -r _ total used _ _ place; do [ -z "$place" ] || say "disk.$place" "$total $used"; done <<SPACES
$spaces
SPACES
}

look_at_timers() { # UNIT…: what updates the machine by itself; after look_at_units, which lists those not at rest
    [ -n "${units:-}" ] || return 0
    for unit; do
        state=inactive
        case "$timers " in *" $unit="*) state=${timers##*" $unit="} state=${state%% *} ;; esac
        say "timer.$unit" "$state"
    done
}

look_at_secret() { # number, path: whether it is there: yes, no, or unknown where we may not look
    if [ -e "$2" ]; then
        say "secret.$1" yes
        return
    fi
    place=${2%/*}
    while [ -n "$place" ] && [ ! -d "$place" ]; do place=${place%/*}; done
    if [ -x "${place:-/}" ]; then say "secret.$1" no; else say "secret.$1" unknown; fi
}

look_at_notes() { # what was recorded of the last deployments
    revisions_file
    number=0
    for file in "$deployments" "$revisions"; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        while read -r line; do
            number=$((number + 1))
            say "note.$number" "$line"
        done <"$file"
    done
}

read -r uptime _ </proc/uptime && say uptime "${uptime%.*}"
look_at_generation
look_at_kernels
look_at_space
look_at_notes
