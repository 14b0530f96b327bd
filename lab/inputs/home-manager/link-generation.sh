# Link the files of generation `$1` into $HOME, and remove those that only generation `$2` (or none) had. What is in the
# way of a link is moved by $HOME_MANAGER_BACKUP_COMMAND, or to FILE.$HOME_MANAGER_BACKUP_EXT; what is equal stays.
set -eu
new=$1/home-files old=${2:+$2/home-files}
cd "$HOME"
while IFS= read -r path; do
    target=$HOME/$path
    if [[ -e $target && ! -L $target ]]; then
        if [[ -n ${HOME_MANAGER_BACKUP_COMMAND:-} ]]; then
            $HOME_MANAGER_BACKUP_COMMAND "$target"
        elif [[ -n ${HOME_MANAGER_BACKUP_EXT:-} ]]; then
            mv "$target" "$target.$HOME_MANAGER_BACKUP_EXT"
        fi
    fi
    if [[ -e $target && ! -L $target ]] && cmp -s "$new/$path" "$target"; then continue; fi
    mkdir -p "$(dirname "$path")"
    ln -sfT "$new/$path" "$path"
done < <(find "$new/" -type l -printf '%P\n')
if [[ -n $old ]]; then
    while IFS= read -r path; do
        if [[ ! -L $new/$path && $(readlink "$path") == "$old/$path" ]]; then rm -f "$path"; fi
    done < <(find "$old/" -type l -printf '%P\n')
fi
