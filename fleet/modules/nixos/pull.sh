#!/bin/sh
# Deploys to this machine what was published for it: FROM/systems/NAME, signed by KEY (`NAME:BASE64`), names a system
# that the cache FROM has, signed by the same key. PROGRAM guards the deployment; it keeps the new system when we
# confirm it, and rolls back in every other case.
#
# Someone who controls FROM does not have the key and can only withhold updates. A pointer older than the last one seen
# is refused, unless root wrote its serial into /run/nixherd/pull-older.
#
# Status 0: this machine runs it. 69: FROM is unreachable. 75: another deployment is under way here.
set -euf
umask 077
export LC_ALL=C
from=$1 key=$2 name=$3 program=$4
kept=/var/lib/nixherd/pull here=/run/nixherd override=/run/nixherd/pull-older root=/nix/var/nix/gcroots/nixherd/pulled
id=pull-$(date +%s)-$$
mkdir -p "$kept" "$here" "${root%/*}"
work=$(mktemp -d "$here/pull-XXXXXX")
trap 'rm -rf "$work"' EXIT

refuse() { echo "$from/systems/$name: $*; refused" >&2 && exit 1; }
later() { echo "$from/systems/$name: $2" >&2 && exit "$1"; } # status: nothing is wrong here, try again later
deployment() { sh "$program" system "$@"; }
value() { printf '%s\n' "$answer" | sed -n "s/^$1=//p" | head -n 1; }
bytes() { printf %s "$1" | base64 -d 2>/dev/null; }

# The pointer: signed, for this machine, not older ---------------------------------------------------------------

{
    curl --fail --silent --show-error --location --proto-redir =http,https --max-time 60 "$from/systems/$name" &&
        : >"$work/whole"
} | head -c 65536 >"$work/pointer"
[ -e "$work/whole" ] || later 69 'it cannot be fetched'
sed '/^-----BEGIN SSH SIGNATURE-----$/,$d' "$work/pointer" >"$work/statement"
sed -n '/^-----BEGIN SSH SIGNATURE-----$/,$p' "$work/pointer" >"$work/signature"
blob=$({ printf '\0\0\0\013ssh-ed25519\0\0\0 ' && bytes "${key#*:}"; } | base64 -w0)
printf 'publisher namespaces="nixherd-system" ssh-ed25519 %s\n' "$blob" >"$work/publishers"
ssh-keygen -Y verify -f "$work/publishers" -I publisher -n nixherd-system -s "$work/signature" <"$work/statement" \
    >/dev/null 2>&1 || refuse "it is not signed by ${key%%:*}"

answer=$(cat "$work/statement")
[ "$(head -n 1 "$work/statement")" = 'nixherd-system 1' ] || refuse 'it has another form than this system knows'
[ "$(value host)" = "$name" ] || refuse "it is for $(value host)"
new=$(value system) serial=$(value serial) revision=$(value revision)
case $new in
*[!0-9A-Za-z+._?=/-]* | /nix/store/*/* | /nix/store/.*) refuse 'it names no system' ;;
/nix/store/?*) ;;
*) refuse 'it names no system' ;;
esac
case $serial in '' | *[!0-9]* | 0?* | ????????????????*) refuse 'it has no serial' ;; esac

seen=0
if [ -e "$kept/seen" ]; then
    read -r seen_key seen <"$kept/seen" || :
    case $seen in '' | *[!0-9]*) refuse "$kept/seen says nothing; remove it where that is not an attack" ;; esac
    [ "$seen_key" = "$key" ] || seen=0 # another key's serial
fi
older=
[ ! -e "$override" ] || read -r older <"$override" || :
if [ "$serial" -lt "$seen" ]; then
    [ "$serial" = "$older" ] ||
        refuse "its serial $serial is older than the last one seen here ($seen); to accept it: echo $serial >$override"
fi
printf '%s %s\n' "$key" "$serial" >"$kept/seen.new"
mv "$kept/seen.new" "$kept/seen"
sync -f "$kept/seen" 2>/dev/null || :
rm -f "$override"
if [ "$new" = "$(readlink -f /run/current-system)" ]; then
    answer=$(deployment last)
    noted=$(value noted)
    noted=${noted#"$new "}
    [ "$revision" != - ] && [ "${noted%% *}" != "$revision" ] || exit 0
    # the same system with another revision: record that, activate nothing
    answer=$(deployment note 3 "$id" "$name-pull" "$new" - "$revision")
    kept=$(value kept_as) busy=$(value busy)
    [ -z "$busy" ] || later 75 "another deployment is under way here ($busy)"
    case $kept in "$new $revision "*) ;; *)
        echo "$from/systems/$name: revision $revision not noted: $(value refused)" >&2
        exit 1
        ;;
    esac
    echo "$from/systems/$name: $new now has revision $revision (serial $serial)"
    exit 0
fi

# The system: signed by the same key, for this machine ---------------------------------------------------------------

# Nix accepts a content-addressed path from anybody. For other paths the signature counts. It covers the references:
# by content where they are content-addressed, otherwise signed by a key that this machine trusts.
signed() {
    info=$(nix --extra-experimental-features nix-command path-info --sigs "$new") || return 1
    refers=$(nix-store --query --references "$new" | sort -u | tr '\n' ,)
    hash=$(nix-store --query --hash "$new") size=$(nix-store --query --size "$new")
    printf '1;%s;%s;%s;%s' "$new" "$hash" "$size" "${refers%,}" >"$work/fingerprint"
    { printf '\060\052\060\005\006\003\053\145\160\003\041\0' && bytes "${key#*:}"; } >"$work/key"
    by_key=1
    for word in ${info#"$new"}; do
        case $word in
        ca:*) return 1 ;;
        "${key%%:*}:"*)
            bytes "${word#*:}" >"$work/by"
            ! openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key" -rawin -in "$work/fingerprint" \
                -sigfile "$work/by" >/dev/null 2>&1 || by_key=0
            ;;
        esac
    done
    return $by_key
}

echo "$from/systems/$name: $new with revision $revision (serial $serial)"
nix-store --realise "$new" --option require-sigs true --add-root "$root" >/dev/null
if ! signed; then
    # one that was here already may have been built here, or copied by others
    nix --extra-experimental-features nix-command store copy-sigs --substituter "$from" "$new" 2>/dev/null || :
    signed || { rm -f "$root" && refuse "$new is not signed by ${key%%:*}"; }
fi
meant=$(cat "$new/etc/hostname" 2>/dev/null) || meant=
[ "$meant" = "$name" ] || { rm -f "$root" && refuse "$new is the system of ${meant:-a machine without a name}"; }

# Its deployment -------------------------------------------------------------------------------------------------------

answer=$(deployment begin 3 "$id" "$name-pull" switch "$new" - 600 120 - - - "$revision")
[ -z "$(value busy)" ] || later 75 "another deployment is under way here ($(value busy))"
while :; do
    state=$(value state)
    case $state in
    armed | activating | keeping | reverting) answer=$(deployment look "$id" "$state" 10) ;;
    proving)
        wrong=$(value failed)
        if [ -n "$wrong" ]; then
            answer=$(deployment say "$id" back "units failed: $wrong")
        elif wrong=$(/etc/nixherd/health 2>&1); then
            answer=$(deployment say "$id" keep)
        else
            answer=$(deployment say "$id" back "$wrong")
        fi
        ;;
    kept)
        wrong=$(value unnoted)
        [ -z "$wrong" ] || echo "$from/systems/$name: revision $revision not noted: $wrong" >&2
        exit 0
        ;;
    *) printf '%s\n' "$answer" >&2 && exit 1 ;;
    esac
done
