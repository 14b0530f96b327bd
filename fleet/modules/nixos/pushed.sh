#!/bin/sh
# The commands allowed to a key that pushes closures to this machine and activates them: $SSH_ORIGINAL_COMMAND, run as
# root. $1 is the user who receives closures, $2 the keys that sign systems for this machine, $3 the deploying program.
#
#   nix-store --serve --write   receives closures, as a user whom the Nix daemon does not trust: input-addressed paths
#                               must be signed. Nothing is built for it, neither here nor by a builder of this machine.
#   nixherd begin|note|look|say|last
#                               commands of the deploying program; `begin` needs a system of this machine that is
#                               signed by one of those keys. Content-addressed paths do not count, because anybody can
#                               create them. The revision of a running system is whatever the caller claims.
set -uf
export LC_ALL=C
receiver=$1 keys=$2 program=$3
request=${SSH_ORIGINAL_COMMAND:-}

no() {
    echo 'this key may only push closures and activate them' >&2
    exit 1
}

refuse() {
    printf 'refused=%s\n' "$*"
    exit 0
}

nix_() { nix --extra-experimental-features nix-command "$@" 2>/dev/null; }

require_ours() { # a store path: refused unless it is a signed system of this machine
    case $1 in
    /nix/store/*[!0-9A-Za-z+._?=-]* | /nix/store/.* | *.drv) refuse "$1 is not a system" ;;
    /nix/store/????????????????????????????????-?*) ;;
    *) refuse "$1 is not a system" ;;
    esac
    marks=$(nix_ path-info --sigs "$1") || refuse "$1 is not in the store"
    case $marks in *[[:space:]]ca:*) refuse "$1 is named by its content, which nobody has to sign" ;; esac
    nix_ store verify --no-contents --sigs-needed 1 \
        --option trusted-public-keys "$keys" --option secret-key-files '' "$1" >/dev/null ||
        refuse "$1 is signed by no key of nixherd.trustedKeys here"
    [ -x "$1/bin/switch-to-configuration" ] || refuse "$1 is not a system"
    name=
    [ ! -r "$1/etc/hostname" ] || read -r name <"$1/etc/hostname"
    read -r hostname </proc/sys/kernel/hostname
    [ "$name" = "$hostname" ] || refuse "$1 is a system of ${name:-no name}, and this is $hostname"
}

case $request in *[[:cntrl:]]*) no ;; esac
case $request in
'nix-store --serve --write')
    exec setpriv --reuid="$receiver" --regid="$receiver" --clear-groups --no-new-privs \
        env -i PATH="$PATH" NIX_REMOTE=daemon \
        nix-store --serve --write --option max-jobs 0 --option builders ''
    ;;
'nixherd '*)
    # shellcheck disable=SC2086
    set -- $request
    shift
    case ${1:-} in
    begin)
        systems=0
        for word in "$@"; do
            case $word in */*) systems=$((systems + 1)) && require_ours "$word" ;; esac
        done
        [ $systems = 1 ] || refuse 'a deployment begins with one system'
        ;;
    note | look | say | last) ;;
    *) no ;;
    esac
    exec /bin/sh "$program" system "$@"
    ;;
esac
no
