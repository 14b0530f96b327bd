#!/bin/sh
# What a key may say that pushes closures to this machine and activates them: $SSH_ORIGINAL_COMMAND, run as root. $1 is
# the user who receives closures, $2 the store's keys that sign systems for this machine, $3 the program that deploys.
#
#   nix-store --serve --write   receives closures, as a user whom the Nix daemon does not trust: what is named by how it
#                               was built has to be signed. Nothing is built for it, here or by a builder of this machine.
#   nixherd begin|note|look|say|last
#                               words of the program that deploys; the system that is begun with is one for this machine,
#                               signed by one of those keys. A path that is named by its content is none: anybody makes
#                               it. Of which revision what runs already is noted to be is the word of whoever says it.
set -uf
export LC_ALL=C
receiver=$1 keys=$2 program=$3
said=${SSH_ORIGINAL_COMMAND:-}

no() {
    echo 'this key may push closures and activate them' >&2
    exit 1
}

refuse() {
    printf 'refused=%s\n' "$*"
    exit 0
}

nix_() { nix --extra-experimental-features nix-command "$@" 2>/dev/null; }

require_ours() { # a store path: refused unless it is a system of this machine's, and signed
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
    read -r own </proc/sys/kernel/hostname
    [ "$name" = "$own" ] || refuse "$1 is a system of ${name:-no name}, and this is $own"
}

case $said in *[[:cntrl:]]*) no ;; esac
case $said in
'nix-store --serve --write')
    exec setpriv --reuid="$receiver" --regid="$receiver" --clear-groups --no-new-privs \
        env -i PATH="$PATH" NIX_REMOTE=daemon \
        nix-store --serve --write --option max-jobs 0 --option builders ''
    ;;
'nixherd '*)
    # shellcheck disable=SC2086
    set -- $said
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
