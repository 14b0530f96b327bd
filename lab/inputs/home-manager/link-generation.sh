# Link the files of generation `$1` into $HOME, and remove those that only generation `$2` (or none) had.
set -eu
new=$1/home-files old=${2:+$2/home-files}
cd "$HOME"
while IFS= read -r path; do
    if [[ -e $path && ! -L $path ]]; then
        echo "Existing file '$HOME/$path' would be clobbered" >&2
        exit 1
    fi
done < <(find "$new/" -type l -printf '%P\n')
while IFS= read -r path; do
    mkdir -p "$(dirname "$path")"
    ln -sfnT "$new/$path" "$path"
done < <(find "$new/" -type l -printf '%P\n')
if [[ -n $old ]]; then
    while IFS= read -r path; do
        if [[ ! -L $new/$path && $(readlink "$path") == "$old/$path" ]]; then rm -f "$path"; fi
    done < <(find "$old/" -type l -printf '%P\n')
fi
