# Create links in /etc to a generation's etc tree (`$1`), and remove the previous generation's links that it lacks.
set -u
tree=$1
ln -sfn "$tree/etc" /etc/static
declare -A wanted=() missing=()
status=0

while read -r mode owner path; do
    wanted[$path]=1
    target=/etc/$path
    [[ -d ${target%/*} ]] || mkdir -p "${target%/*}"
    if [[ $mode != symlink ]]; then
        install -m "$mode" -o "${owner%:*}" -g "${owner#*:}" "$tree/etc/$path" "$target.new" && mv -fT "$target.new" "$target" || status=1
    elif [[ -L $target && $target -ef $tree/etc/$path ]]; then
        continue # already correct
    elif [[ -d $target && ! -L $target ]]; then
        echo "warning: $target is a directory and stays as it is" >&2
    elif [[ ! -e $target && ! -L $target ]]; then
        missing[${target%/*}]+=/etc/static/$path$'\n' # at a first boot that is all of them
    else
        ln -sfn "/etc/static/$path" "$target.new" && mv -fT "$target.new" "$target" || status=1
    fi
done <"$tree/manifest"
for directory in "${!missing[@]}"; do
    mapfile -t links <<<"${missing[$directory]%$'\n'}"
    ln -s -t "$directory" -- "${links[@]}" || status=1
done

if [[ -e /etc/.clean ]]; then
    while read -r path; do
        if [[ -n $path && -z ${wanted[$path]:-} ]]; then
            echo "removing obsolete /etc/$path"
            rm -f "/etc/$path"
        fi
    done </etc/.clean
fi
printf '%s\n' "${!wanted[@]}" >/etc/.clean
exit $status
