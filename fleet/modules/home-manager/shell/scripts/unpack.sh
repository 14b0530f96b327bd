# shellcheck shell=bash
# unpack ARCHIVE…: unpack each archive (tar, zip, 7z, iso, …) into a directory of its own beside it, named like it.
# What is there already stays as it is: such an archive is refused.

if (($# == 0)); then
    echo "usage: unpack ARCHIVE…" >&2
    exit 2
fi

failed=0
for archive; do
    name=${archive%.*}
    name=${name%.tar}
    if [[ ! -f $archive ]]; then
        echo "unpack: $archive is not a file" >&2
        failed=1
    elif [[ $name == "$archive" ]]; then
        echo "unpack: $archive has no ending that says what it is, such as .zip or .tar.gz" >&2
        failed=1
    elif ! mkdir -- "$name"; then
        echo "unpack: $archive would go into $name, which is there; move one of them away" >&2
        failed=1
    elif bsdtar -x -f "$archive" -C "$name"; then
        echo "$name"
    else
        echo "unpack: $archive could not be unpacked; what there is of it is in $name" >&2
        failed=1
    fi
done
exit "$failed"
