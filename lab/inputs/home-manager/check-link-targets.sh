# Refuse generation `$1`, before anything is changed, if it would replace files in $HOME that are not links of Home
# Manager; further arguments are paths below $HOME that it replaces whatever is there. Files of equal content stay as
# they are, and others are moved to FILE.$HOME_MANAGER_BACKUP_EXT if that is set, or left to
# $HOME_MANAGER_BACKUP_COMMAND, with which links are not moved. The messages are Home Manager's.
set -eu
new=$1/home-files
shift
forced=("$@")
errors=()

is_forced() { # path below $HOME
    local path
    for path in "${forced[@]}"; do
        if [[ $1 == "$path" ]]; then return 0; fi
    done
    return 1
}

check() { # source, target
    local backup=$2.${HOME_MANAGER_BACKUP_EXT:-}
    if cmp -s "$1" "$2"; then
        echo "Existing file '$2' is in the way of '$1', will be skipped since they are the same" >&2
    elif [[ -L $2 || -z ${HOME_MANAGER_BACKUP_COMMAND:-}${HOME_MANAGER_BACKUP_EXT:-} ]]; then
        errors+=("Existing file '$2' would be clobbered")
    elif [[ -n ${HOME_MANAGER_BACKUP_COMMAND:-} ]]; then
        return
    elif [[ ! -e $backup ]]; then
        echo "Existing file '$2' is in the way of '$1', will be moved to '$backup'" >&2
    elif [[ -n ${HOME_MANAGER_BACKUP_OVERWRITE:-} ]]; then
        echo "Existing file '$2' is in the way of '$1' and '$backup' exists. Backup will be clobbered due to HOME_MANAGER_BACKUP_OVERWRITE=1" >&2
    else
        errors+=("Existing file '$backup' would be clobbered by backing up '$2'")
    fi
}

while IFS= read -r path; do
    target=$HOME/$path
    if is_forced "$path" || [[ ! -e $target && ! -L $target ]]; then continue; fi
    if [[ -L $target && $(readlink "$target") == /nix/store/*-home-manager-generation/home-files/* ]]; then continue; fi
    check "$new/$path" "$target"
done < <(find "$new/" -type l -printf '%P\n')

if [[ ${#errors[@]} -gt 0 ]]; then
    cat >&2 <<END
Please do one of the following:
- In standalone mode, use 'home-manager switch -b backup' to back up files automatically.
- When used as a NixOS or nix-darwin module, set either
  - 'home-manager.backupFileExtension', or
  - 'home-manager.backupCommand',
  to move the file to a new location in the same directory, or run a custom command.
- Set 'force = true' on the related file options to forcefully overwrite the files below. eg. 'xdg.configFile."mimeapps.list".force = true'
END
    printf '%s\n' "${errors[@]}" >&2
    exit 1
fi
