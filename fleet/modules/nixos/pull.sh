#!/bin/sh
# Deploys to this machine what was published for it: FROM/systems/NAME, signed by KEY (`NAME:BASE64`), names a system,
# which the cache FROM has, signed by the same key. PROGRAM guards the deployment; it keeps the new system when we say
# so, and goes back in every other case.
#
# Whoever answers for FROM, or writes there, has no key: what he can do is withhold. An older pointer than the last that
# was seen is refused, unless root wrote its serial into /run/nixherd/pull-older.
#
# Status 0: this machine runs it. 69: FROM cannot be reached. 75: another deployment is under way here.
set -euf
umask 077
export LC_ALL=C
from=$1 key=$2 name=$3 program=$4
kept=/var/lib/nixherd/pull here=/run/nixherd told=/run/nixherd/pull-older root=/nix/var/nix/gcroots/nixherd/pulled
id=pull-$(date +%s)-$$
mkdir -p "$kept" "$here" "${root%/*}"
work=$(mktemp -d "$here/pull-XXXXXX")
trap 'rm -rf "$work"' EXIT

refuse() { echo "$from/systems/$name: $*; refused" >&2 && exit 1; }
later() { echo "$from/systems/$name: $2" >&2 && exit "$1"; } # status: nothing is wrong here, it may be asked again
deployment() { sh "$program" system "$@"; }
value() { printf '%s\n' "$said" | sed -n "s/^$1=//p" | head -n 1; }
bytes() { printf %s "$1" | base64 -d 2>/dev/null; }

# The pointer: signed, for this machine, not an older one -------------------------------------------------------------

{
    curl --fail --silent --show-error --location --proto-redir =http,https --max-time 60 "$from/systems/$name" &&
        : >"$work/whole"
} | head -c 65536 >"$work/pointer"
[ -e "$work/whole" ] || later 69 'it cannot be fetched'
sed '/^-----BEGIN SSH SIGNATURE-----$/,$d' "$work/pointer" >"$work/said"
sed -n '/^-----BEGIN SSH SIGNATURE-----$/,$p' "$work/pointer" >"$work/signature"
blob=$({ printf '\0\0\0\013ssh-ed25519\0\0\0 ' && bytes "${key#*:}"; } | base64 -w0)
printf 'publisher namespaces="nixherd-system" ssh-ed25519 %s\n' "$blob" >"$work/publishers"
ssh-keygen -Y verify -f "$work/publishers" -I publisher -n nixherd-system -s "$work/signature" <"$work/said" \
    >/dev/null 2>&1 || refuse "it is not signed by ${key%%:*}"

said=$(cat "$work/said")
[ "$(head -n 1 "$work/said")" = 'nixherd-system 1' ] || refuse 'it has another form than this system knows'
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
    [ "$seen_key" = "$key" ] || seen=0 # another key's
fi
older=
[ ! -e "$told" ] || read -r older <"$told" || :
if [ "$serial" -lt "$seen" ]; then
    [ "$serial" = "$older" ] ||
        refuse "it is older ($serial) than what was seen here before ($seen); echo $serial >$told takes it all the same"
fi
printf '%s %s\n' "$key" "$serial" >"$kept/seen.new"
mv "$kept/seen.new" "$kept/seen"
sync -f "$kept/seen" 2>/dev/null || :
rm -f "$told"
if [ "$new" = "$(readlink -f /run/current-system)" ]; then
    said=$(deployment last)
    noted=$(value noted)
    noted=${noted#"$new "}
    [ "$revision" != - ] && [ "${noted%% *}" != "$revision" ] || exit 0
    # the same system of another revision: that is noted, and nothing activated
    said=$(deployment note 3 "$id" "$name-pull" "$new" - "$revision")
    kept=$(value kept_as) busy=$(value busy)
    [ -z "$busy" ] || later 75 "another deployment is under way here ($busy)"
    case $kept in "$new $revision "*) ;; *)
        echo "$from/systems/$name: revision $revision not noted: $(value refused)" >&2
        exit 1
        ;;
    esac
    echo "$from/systems/$name: $new is of revision $revision now (serial $serial)"
    exit 0
fi

# The system: signed by the same key, and of this machine -------------------------------------------------------------

# Nix takes a content-addressed path from anybody. One that is not is what its signature says, and names what it refers
# to: by content where that is content-addressed, and signed by somebody whom this machine trusts where it is not.
signed() {
    about=$(nix --extra-experimental-features nix-command path-info --sigs "$new") || return 1
    refers=$(nix-store --query --references "$new" | sort -u | tr '\n' ,)
    hash=$(nix-store --query --hash "$new") size=$(nix-store --query --size "$new")
    printf '1;%s;%s;%s;%s' "$new" "$hash" "$size" "${refers%,}" >"$work/fingerprint"
    { printf '\060\052\060\005\006\003\053\145\160\003\041\0' && bytes "${key#*:}"; } >"$work/key"
    by_key=1
    for word in ${about#"$new"}; do
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

echo "$from/systems/$name: $new of revision $revision (serial $serial)"
nix-store --realise "$new" --option require-sigs true --add-root "$root" >/dev/null
if ! signed; then
    # one that was here already may have been made here, or copied by somebody else
    nix --extra-experimental-features nix-command store copy-sigs --substituter "$from" "$new" 2>/dev/null || :
    signed || { rm -f "$root" && refuse "$new is not signed by ${key%%:*}"; }
fi
meant=$(cat "$new/etc/hostname" 2>/dev/null) || meant=
[ "$meant" = "$name" ] || { rm -f "$root" && refuse "$new is the system of ${meant:-a machine without a name}"; }

# Its deployment -------------------------------------------------------------------------------------------------------

said=$(deployment begin 3 "$id" "$name-pull" switch "$new" - 600 120 - - - "$revision")
[ -z "$(value busy)" ] || later 75 "another deployment is under way here ($(value busy))"
while :; do
    state=$(value state)
    case $state in
    armed | activating | keeping | reverting) said=$(deployment look "$id" "$state" 10) ;;
    proving)
        wrong=$(value failed)
        if [ -n "$wrong" ]; then
            said=$(deployment say "$id" back "units failed: $wrong")
        elif wrong=$(/etc/nixherd/health 2>&1); then
            said=$(deployment say "$id" keep)
        else
            said=$(deployment say "$id" back "$wrong")
        fi
        ;;
    kept)
        wrong=$(value unnoted)
        [ -z "$wrong" ] || echo "$from/systems/$name: revision $revision not noted: $wrong" >&2
        exit 0
        ;;
    *) printf '%s\n' "$said" >&2 && exit 1 ;;
    esac
done
