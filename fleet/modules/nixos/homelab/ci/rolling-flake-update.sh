#!/bin/sh
# The rolling update: update the fleet's inputs, build every machine and home, put the builds into a binary cache, push
# the update, and only then announce the new systems to the machines in the cache. If a build fails, nothing is pushed
# and the machines keep what they have.
#
#   rolling-flake-update.sh BUILDER STATE BRANCH
#
# BUILDER is the user that evaluates, builds and runs git on everything of the fleet; STATE is a directory of this
# program, with the cache in STATE/cache; BRANCH is the branch to follow, `-` for the remote's default.
# In $CREDENTIALS_DIRECTORY: `clone`, git's configuration of a clone of the fleet, for the URL of its origin; `key`, the
# cache's secret key from `nix key generate-secret`; `token`, if it exists, for pushing. $RUNTIME_DIRECTORY is in
# memory.
#
# The tree is untrusted input: the builder, who evaluates it, can read none of the credentials. If the run is killed at
# any moment, the next one completes it; the builds are kept until then.
set -euf
umask 022
export LC_ALL=C HOME="$RUNTIME_DIRECTORY"
builder=$1 state=$2 branch=$3
credentials=$CREDENTIALS_DIRECTORY scratch=$RUNTIME_DIRECTORY
work=$state/work cache=$state/cache
tree=$work/tree
tries=5 # how often another push may come first
keep=3  # commits whose builds are kept

die() { echo "$*" >&2 && exit 1; }

# As the builder -------------------------------------------------------------------------------------------------------

as_builder() { # command: run it as the builder
    set -- env -u CREDENTIALS_DIRECTORY HOME="$work/home" GIT_TERMINAL_PROMPT=0 "$@"
    if [ "$(id -un)" = "$builder" ]; then
        "$@"
    else
        setpriv --reuid="$builder" --regid="$builder" --clear-groups --no-new-privs "$@"
    fi
}

nix_() { as_builder nix --extra-experimental-features 'nix-command flakes' --option accept-flake-config false "$@" </dev/null; }
git_() { as_builder git -C "$tree" -c user.name='rolling update' -c user.email="rolling-flake-update@$(uname -n)" "$@"; }

# git gets the token through a descriptor, only for the origin's own server, and never without TLS.
# shellcheck disable=SC2016
helper='!f() { [ "$1" != get ] || { echo username=x-access-token && printf password= && head -n 1 <&3; }; }; f'
remotely() { # git's arguments: with access to the origin
    case $url in
    https://*)
        if [ -e "$credentials/token" ]; then
            git_ -c "credential.$server.helper=" -c "credential.$server.helper=$helper" "$@" 3<"$credentials/token"
            return
        fi
        ;;
    esac
    git_ "$@"
}

find_origin() { # its URL into $url; an SSH URL is converted to HTTPS, because this machine has no SSH key
    url=$(git config --file "$credentials/clone" --get remote.origin.url) || die 'the clone in repoDir has no remote named origin'
    case $url in
    *[[:space:][:cntrl:]]* | -* | *::*) die 'the origin of the clone in repoDir has a URL that cannot be used' ;;
    https://*:*@*) die 'the origin of the clone in repoDir has a password in its URL; move it to homelab.ci.rollingFlakeUpdate.tokenFile' ;;
    https://*@*) url=https://${url#*@} ;;
    ssh://*) url=${url#ssh://} && url=${url#*@} && url=https://$(printf %s "$url" | sed 's|^\([^/:]*\):[0-9]*/|\1/|') ;;
    http://*) [ ! -e "$credentials/token" ] || die 'the origin of the clone in repoDir does not use TLS, which would reveal the token: change it to an https:// URL' ;;
    *://* | /*) ;;
    *@*:*) url=${url#*@} && url=https://${url%%:*}/${url#*:} ;;
    esac
    server=$(printf %s "$url" | sed -n 's|^\(https://[^/]*\).*|\1|p')
}

clone() { # a new one each time: without remains of an earlier run
    as_builder rm -rf "$tree"
    as_builder mkdir -p "$tree" "$work/home" "$work/builds"
    git_ init --quiet --template=
    git_ remote add origin "$url"
    if [ "$branch" = - ]; then
        branch=$(remotely ls-remote --symref origin HEAD | sed -n 's|^ref: refs/heads/\(.*\)	HEAD$|\1|p')
        [ -n "$branch" ] || die "the origin names no default branch; set homelab.ci.rollingFlakeUpdate.branch"
    fi
    fetch
}
fetch() { # the branch's commit into $tip
    remotely fetch --quiet --no-tags origin "+refs/heads/$branch:refs/remotes/origin/$branch" ||
        die "$branch cannot be fetched from $url"
    tip=$(git_ rev-parse --verify "refs/remotes/origin/$branch^{commit}") || die "$branch is not a commit"
}

# The update -----------------------------------------------------------------------------------------------------------

update() { # of $tip: create $commit with today's inputs, or use $tip itself if nothing changed
    git_ checkout --quiet --force -B rolling "$tip"
    stale=0
    if ! moved=$(nix_ flake update --flake "$tree" 2>&1); then # a server may be down: continue with what is locked
        printf '%s\nthe inputs cannot be updated\n' "$moved" >&2
        stale=1
    elif [ -e "$tree/flake.lock" ]; then
        git_ add flake.lock
    fi
    if [ $stale = 0 ] && ! git_ diff --cached --quiet; then
        git_ commit --quiet --no-verify --no-gpg-sign --message 'flake.lock: update' \
            --message "$(printf '%s\n' "$moved" | sed -n '/^•/,$p')"
    fi
    commit=$(git_ rev-parse HEAD)
}

rebase() { # $commit on what others have pushed; with the same inputs, so that the builds can be reused
    git_ checkout --quiet --force -B rolling "$tip"
    if git_ cherry-pick --allow-empty "$commit" >/dev/null 2>&1; then
        commit=$(git_ rev-parse HEAD)
    else # they have updated the inputs as well
        git_ cherry-pick --abort 2>/dev/null || git_ reset --quiet --hard
        update
    fi
}

# The gate -------------------------------------------------------------------------------------------------------------

# One by one: a real machine's evaluation takes a gigabyte, and every failure must be named.
# shellcheck disable=SC2016
attributes='flake: let
  names = output: set: last: map (name: output + builtins.toJSON name + last) (builtins.attrNames set);
in
  builtins.concatStringsSep "\n" (names "nixosConfigurations." (flake.nixosConfigurations or {}) ".config.system.build.toplevel"
    ++ names "homeConfigurations." (flake.homeConfigurations or {}) ".activationPackage"
    ++ names "checks.SYSTEM." (flake.checks.SYSTEM or {}) "")'

verify() { # commit: whether everything builds; results are kept in $builds by number
    flake="git+file://$tree?rev=$1" builds=$work/builds/$1 wrong=0 number=0
    as_builder mkdir -p "$builds"
    as_builder touch "$builds"
    system=$(uname -m)-linux
    nix_ eval --raw --expr "($(printf %s "$attributes" | sed "s/SYSTEM/$system/g")) (builtins.getFlake \"$flake\")" >"$scratch/attributes" ||
        { echo "$1: its outputs cannot be listed" >&2 && return 1; }
    echo >>"$scratch/attributes"
    grep -q ^nixosConfigurations "$scratch/attributes" || { echo "$1: has no machines" >&2 && return 1; }
    while read -r attribute; do
        number=$((number + 1))
        nix_ build --out-link "$builds/$number" "$flake#$attribute" 2>"$scratch/said" && continue
        wrong=$((wrong + 1))
        cat "$scratch/said" >&2
        echo "$1: $attribute cannot be built" >&2
    done <"$scratch/attributes"
    [ $wrong = 0 ] || return 1
    list_machines
}

# The name under which a machine asks is in its own system.
list_machines() { # HOSTNAME SYSTEM lines into $scratch/machines
    number=0
    : >"$scratch/machines"
    while read -r attribute; do
        number=$((number + 1))
        case $attribute in nixosConfigurations.*) ;; *) continue ;; esac
        built=$(readlink "$builds/$number") name=
        require_store_path "$built"
        { read -r name <"$built/etc/hostname"; } 2>/dev/null || :
        case $name in
        '' | *[!A-Za-z0-9_.-]* | [!A-Za-z0-9]* | *[!A-Za-z0-9])
            echo "$attribute has no hostname; it is not published"
            ;;
        *) echo "$name $built" >>"$scratch/machines" ;;
        esac
    done <"$scratch/attributes"
    twice=$(cut -d' ' -f1 "$scratch/machines" | sort | uniq -d | tr '\n' ' ')
    [ -z "$twice" ] || { echo "more than one machine has the hostname ${twice% }" >&2 && return 1; }
}

require_store_path() {
    case $1 in
    /nix/store/*[!0-9A-Za-z+._?=-]* | /nix/store/.*) die "$1 is not a store path" ;;
    /nix/store/?*) ;;
    *) die "$1 is not a store path" ;;
    esac
}

# The cache ------------------------------------------------------------------------------------------------------------

links() { # of a commit's builds: their targets
    find "$1" -mindepth 1 -maxdepth 1 -type l -exec readlink {} + | sort -u
}

put_into_cache() { # the builds of $commit, signed
    links "$work/builds/$commit" >"$scratch/systems"
    while read -r system; do require_store_path "$system"; done <"$scratch/systems"
    # shellcheck disable=SC2046
    set -- $(cat "$scratch/systems")
    nix --extra-experimental-features nix-command copy \
        --to "file://$cache?compression=zstd&secret-key=$credentials/key" "$@" || die "$cache cannot be filled"
    nix --extra-experimental-features nix-command path-info --store "file://$cache" "$@" >/dev/null ||
        die "$cache lacks paths that were copied there"
}

secret() { sed 's/^[^:]*://' "$credentials/key" | base64 -d; } # seed and public half, 32 bytes each
public() { printf '\0\0\0\013ssh-ed25519\0\0\0\040' && secret | tail -c 32; }

openssh_key() { # the cache's key in OpenSSH's format (its PROTOCOL.key)
    echo '-----BEGIN OPENSSH PRIVATE KEY-----'
    {
        printf 'openssh-key-v1\0\0\0\0\004none\0\0\0\004none\0\0\0\0\0\0\0\001\0\0\0\063' && public
        printf '\0\0\0\210\0\0\0\0\0\0\0\0' && public
        printf '\0\0\0\100' && secret && printf '\0\0\0\0\001\002\003\004\005'
    } | base64 -w 70
    echo '-----END OPENSSH PRIVATE KEY-----'
}

point() { # announce to each machine, signed, which build of $commit it runs; nixherd/trust/publish.py defines the format
    serial=$(date +%s)
    last=0
    [ ! -e "$state/serial" ] || read -r last <"$state/serial"
    [ "$serial" -gt "$last" ] || serial=$((last + 1))
    replace "$state/serial" "$serial"
    mkdir -p "$cache/systems"
    (umask 077 && openssh_key >"$scratch/key")
    while read -r name system; do
        printf 'nixherd-system 1\nhost=%s\nsystem=%s\nrevision=%s\nserial=%s\n' \
            "$name" "$system" "$commit" "$serial" >"$scratch/pointer"
        ssh-keygen -q -Y sign -f "$scratch/key" -n nixherd-system <"$scratch/pointer" >"$scratch/signature"
        cat "$scratch/pointer" "$scratch/signature" >"$cache/systems/.$name"
        mv "$cache/systems/.$name" "$cache/systems/$name"
        echo "$name: $system"
    done <"$scratch/machines"
    rm -f "$scratch/key"
}

replace() { # file, line: atomically
    printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"
}

publish() { # $commit, which is on the branch and in the cache
    point
    sync -f "$cache"
    replace "$state/published" "$commit"
    echo "published: $commit"
    forget_builds
    forget
}

# Old builds ------------------------------------------------------------------------------------------------------------

forget_builds() { # except those of the last commits
    find "$work/builds" -mindepth 1 -maxdepth 1 -printf '%T@ %f\n' | sort -rn | tail -n "+$((keep + 1))" |
        while read -r _ old; do as_builder rm -rf "${work:?}/builds/$old"; done
}

forget() { # what the cache has that no machine is told to run and that was not built now
    { find "$cache/systems" -type f -exec sed -n '/^-----/q; s/^system=//p' {} \; && links "$work/builds/$commit"; } | sort -u >"$scratch/systems"
    # shellcheck disable=SC2046
    nix --extra-experimental-features nix-command path-info --recursive --store "file://$cache" $(cat "$scratch/systems") >"$scratch/needed" ||
        { echo 'the cache: cannot tell what is still needed; nothing is removed' && return; }
    sed 's|^/nix/store/||; s|-.*||' "$scratch/needed" | sort >"$scratch/hashes"
    old_files() { find "$1" -maxdepth 1 -type f -name "$2" -mtime +0 -exec basename {} \; ; }
    old_files "$cache" '*.narinfo' | sed 's/[.]narinfo$//' | sort | comm -23 - "$scratch/hashes" |
        while read -r hash; do rm -f "$cache/$hash.narinfo"; done
    find "$cache" -maxdepth 1 -name '*.narinfo' -exec sed -n 's|^URL: nar/||p' {} + | sort >"$scratch/nars"
    old_files "$cache/nar" '*' | sort | comm -23 - "$scratch/nars" | while read -r nar; do rm -f "$cache/nar/$nar"; done
}

# One run --------------------------------------------------------------------------------------------------------------

try_commit() { # into the cache with $commit, if everything builds
    verify "$commit" || return 1
    put_into_cache
}

push() { # whether $commit is the branch's tip now
    [ "$commit" != "$tip" ] || return 0
    remotely push --quiet origin "$commit:refs/heads/$branch" && return 0
    before=$tip
    fetch
    [ "$commit" != "$tip" ] || return 0 # it was, and the answer was lost
    [ "$before" != "$tip" ] || die 'the push was refused although nobody else pushed: check that the token (homelab.ci.rollingFlakeUpdate.tokenFile) may write'
    return 1
}

if [ "$(id -un)" = "$builder" ]; then mkdir -p "$work"; else install -d -m 0700 -o "$builder" -g "$builder" "$work"; fi
mkdir -p "$cache"
trap 'rm -f "$scratch/key"' EXIT
exec 9>"$state/lock"
flock -n 9 || die 'another rolling update is running here'
[ "$(secret | wc -c)" = 64 ] || die "homelab.ci.rollingFlakeUpdate.signingKeyFile is not a key from 'nix key generate-secret'"
find_origin
clone
forget_builds
published=
[ ! -e "$state/published" ] || read -r published <"$state/published"
update
if [ "$commit" = "$published" ]; then
    echo "nothing new: $commit"
    exit $stale
fi
if ! try_commit; then
    # commits do not wait for a broken input to be repaired
    if [ "$commit" = "$tip" ] || [ "$tip" = "$published" ]; then
        die "$commit does not pass the gate; machines keep what they have"
    fi
    echo "the update of the inputs does not pass the gate; continuing with $tip without it" >&2
    commit=$tip
    try_commit || die "$commit does not pass the gate either; machines keep what they have"
    publish
    exit 1
fi
while ! push; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || die 'others pushed first every time; the builds are kept for the next run'
    echo "others have pushed ($tip): trying again on top of it"
    rebase
    try_commit || die "$commit does not pass the gate; machines keep what they have"
done
publish
exit $stale
