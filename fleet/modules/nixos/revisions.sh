# The fleet's revision of a system: a part of machine.sh, and of the queries to a machine. The revision is not part of a
# system, or every commit would change every machine; it is recorded where a system, or a home ($kind), is kept.
#
# One line per path, `PATH REVISION WHEN WHO RUN`, the newest last; a revision is a full commit hash, with `-dirty` for
# uncommitted files, or `-` if it is unknown. A line counts only while exactly that path runs.
#
# Beside it, `deployments` has the same lines of the last deployments, also where one path was deployed twice.

revisions_file() { # the file that records them, into $revisions
    revisions=/var/lib/nixherd/revisions
    [ "$kind" = system ] || revisions=$HOME/.local/state/nixherd/revisions
    deployments=${revisions%/*}/deployments
}

noted_of() { # path: its line into $noted, empty without one
    noted=
    revisions_file
    [ -f "$revisions" ] && [ -r "$revisions" ] || return 0
    while read -r noted_path noted_rest; do
        [ "$noted_path" != "$1" ] || noted="$noted_path $noted_rest"
    done <"$revisions"
}

is_revision() { # word
    case ${1%-dirty} in
    *[!0-9a-f]*) [ "$1" = - ] ;;
    ????????????????????????????????????????) ;;
    ????????????????????????????????????????????????????????????????) ;;
    *) return 1 ;;
    esac
}

note_revision() { # revision, who, run, paths…: fails and prints why if they cannot be recorded
    said_of=$1 noted_by="$(date -u +%Y-%m-%dT%H:%M:%SZ) $2 $3"
    shift 3
    revisions_file
    lines=$(tail -n 64 "$revisions" 2>/dev/null)
    last=$(tail -n 64 "$deployments" 2>/dev/null | awk 'NF == 5' | tail -n 39)
    for each; do
        # an unknown revision keeps an earlier known one of the same path
        noted_of "$each"
        noted=${noted#* }
        noted=${noted%% *}
        [ "$said_of" = - ] || noted=$said_of
        lines=$(printf '%s\n' "$lines" | awk -v path="$each" 'NF == 5 && $1 != path' | tail -n 63
            printf '%s %s %s\n' "$each" "${noted:--}" "$noted_by")
        last=$(printf '%s\n' "$last" "$each ${noted:--} $noted_by")
    done
    (
        umask 022
        mkdir -p "${revisions%/*}" && { [ "$kind" = home ] || chmod 0755 "${revisions%/*}"; } &&
            printf '%s\n' "$lines" | cat >"$revisions.new" && sync "$revisions.new" &&
            mv -fT "$revisions.new" "$revisions" && sync "${revisions%/*}"
    ) && { note_deployments || true; return 0; }
    rm -f "$revisions.new"
    return 1
}

note_deployments() ( # $last: that it cannot be written fails nothing
    umask 022
    printf '%s\n' "$last" | awk NF >"$deployments.new" && mv -fT "$deployments.new" "$deployments" ||
        rm -f "$deployments.new"
) 2>/dev/null
