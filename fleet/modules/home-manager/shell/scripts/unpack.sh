# shellcheck shell=bash
# unpack ARCHIVE…: unpack each archive (tar, zip, 7z, iso, …) into a new directory beside it, with the archive's name.
# Existing files stay as they are: if the directory exists, the archive is refused.

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
        echo "unpack: $archive has an unknown extension; expected for example .zip or .tar.gz" >&2
        failed=1
    elif ! mkdir -- "$name"; then
        echo "unpack: $archive would be unpacked to $name, which exists; move one of them away" >&2
        failed=1
    elif bsdtar -x -f "$archive" -C "$name"; then
        echo "$name"
    else
        echo "unpack: $archive could not be unpacked completely; the rest is in $name" >&2
        failed=1
    fi
done
exit "$failed"
