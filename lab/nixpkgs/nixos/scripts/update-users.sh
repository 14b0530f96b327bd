# Make /etc/passwd, group and shadow match the generation's lists in `$1`; with `$2` = true, undeclared users and groups
# stay, and so do changed passwords.
set -u
lists=$1 mutable=$2
umask 077

declare -A uid_of=() gid_of=() hash_of=() entry_of=() members_of=() used_uids=() used_gids=() declared=()

if [[ -e /etc/group ]]; then
    while IFS=: read -r name _ gid members; do
        gid_of[$name]=$gid members_of[$name]=$members used_gids[$gid]=1
    done </etc/group
fi
if [[ -e /etc/passwd ]]; then
    while IFS=: read -r name _ uid rest; do
        uid_of[$name]=$uid entry_of[$name]=$rest used_uids[$uid]=1
    done </etc/passwd
fi
if [[ -e /etc/shadow ]]; then
    while IFS=: read -r name hash _; do hash_of[$name]=$hash; done </etc/shadow
fi

# The first unused number: upwards from 1000 for users, downwards from 999 for services.
free_number() { # name of the table, normal or system
    local -n used=$1
    if [[ $2 == normal ]]; then number=1000 step=1; else number=999 step=-1; fi
    while [[ -n ${used[$number]:-} ]]; do ((number += step)); done
    used[$number]=1
}

while IFS=: read -r _ gid _; do [[ -n $gid ]] && used_gids[$gid]=1; done <"$lists/nixos-groups"
while IFS=: read -r _ uid _; do [[ -n $uid ]] && used_uids[$uid]=1; done <"$lists/nixos-users"

groups='' passwd='' shadow='' homes=() runtime=()
while IFS=: read -r name gid members; do
    declared[$name]=1
    number=${gid:-${gid_of[$name]:-}}
    [[ -n $number ]] || free_number used_gids system
    gid_of[$name]=$number
    groups+=$name:x:$number:$members$'\n'
done <"$lists/nixos-groups"
if [[ $mutable == true ]]; then
    for name in "${!members_of[@]}"; do
        [[ -n ${declared[$name]:-} ]] || groups+=$name:x:${gid_of[$name]}:${members_of[$name]}$'\n'
    done
fi

# Remove users that an earlier generation declared and this one does not; users added by hand stay.
record=/var/lib/nixos/declarative-users
declare -A earlier=()
if [[ -e $record ]]; then for name in $(<"$record"); do earlier[$name]=1; done; fi

declared=()
while IFS=: read -r name uid group home shell kind home_mode initial_hash hash description; do
    declared[$name]=1
    number=${uid:-${uid_of[$name]:-}}
    [[ -n $number ]] || free_number used_uids "${kind%+home}"
    gid=${gid_of[$group]:-}
    if [[ -z $gid ]]; then
        echo "warning: user $name has undefined group $group" >&2
        gid=65534
    fi
    passwd+=$name:x:$number:$gid:$description:$home:$shell$'\n'
    if [[ $hash == @* ]]; then
        file=${hash#@} hash=
        if [[ -e $file ]]; then hash=$(<"$file"); else echo "warning: password file ‘$file’ does not exist" >&2; fi
    fi
    kept=${hash_of[$name]:-}
    if [[ $mutable == true && -n $kept ]]; then hash=$kept; else hash=${hash:-${initial_hash:-!}}; fi
    shadow+=$name:$hash:1::::::$'\n'
    [[ $kind == *+home && ! -e $home ]] && homes+=("$home:$home_mode:$number:$gid")
    [[ $kind == normal* ]] && runtime+=("$number:$gid")
done <"$lists/nixos-users"
if [[ $mutable == true ]]; then
    for name in "${!uid_of[@]}"; do
        [[ -n ${declared[$name]:-} ]] && continue
        if [[ -n ${earlier[$name]:-} ]]; then
            echo "removing user $name"
            continue
        fi
        passwd+=$name:x:${uid_of[$name]}:${entry_of[$name]}$'\n'
        shadow+=$name:${hash_of[$name]:-!}:1::::::$'\n'
    done
fi

write() { # path, mode, text
    if [[ ! -e $1 || $(<"$1")$'\n' != "$3" ]]; then
        printf %s "$3" >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"
    fi
}
write /etc/group 0644 "$groups"
write /etc/passwd 0644 "$passwd"
write /etc/shadow 0600 "$shadow"
write "$record" 0644 "${!declared[*]}"$'\n'

for entry in "${homes[@]}"; do
    IFS=: read -r home mode uid gid <<<"$entry"
    mkdir -p "${home%/*}" && chmod go+rx "${home%/*}"
    mkdir -m "$mode" "$home" && chown "$uid:$gid" "$home"
done
# What a log-in makes, by logind and the user's systemd, of which the lab has neither.
for entry in "${runtime[@]}"; do
    [[ -e /run/user/${entry%:*} ]] || { mkdir -p -m 0755 /run/user && mkdir -m 0700 "/run/user/${entry%:*}" && chown "$entry" "/run/user/${entry%:*}"; }
done
