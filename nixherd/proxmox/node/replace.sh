# Replaces a file that a node boots by, and has what boots made of it anew: all of it, or the old one is back.
#   $1 the file   $2 its sha256 as it was read   $3 the new one's, which comes on stdin
#   $4 where backups are kept   $5 where notes are kept of what was begun and did not end
#   $6 a command that judges the new file, its path in $1   $7 the command that has what boots made of it
#   $8 where that says what it says: nobody may listen any more
# Killed anywhere, either the old file stands or the new one with its note, by which the next run goes on.
set -eu
umask 022
trap '' HUP PIPE
file=$(readlink -f -- "$1")
update() { sh -c "$1" >>"$2" 2>&1 </dev/null; }
sum() { sha256sum <"$1" | cut -d ' ' -f 1; }
[ "$(sum "$file")" = "$2" ] || {
  echo "$1 has been changed meanwhile; nothing was done: run this again" >&2
  exit 1
}
new=$file.nixherd-new
rm -f -- "$new"
cp -p -- "$file" "$new"
cat >"$new"
[ "$(sum "$new")" = "$3" ] || {
  rm -f -- "$new"
  echo "the new $1 did not arrive whole; nothing was done: run this again" >&2
  exit 1
}
sh -c "$6" judge "$new" >&2 || {
  rm -f -- "$new"
  echo "$1 stays as it was" >&2
  exit 1
}
mkdir -p -- "$4" "$5"
backup=$4/$(basename -- "$1").$2
cp -p -- "$file" "$backup.new"
mv -- "$backup.new" "$backup"
: >"$5/boot-loader"
sync
mv -- "$new" "$file"
sync
if update "$7" "$8"; then
  rm -f -- "$5/boot-loader"
  exit 0
fi
tail -n 2 -- "$8" >&2
cp -p -- "$backup" "$new"
mv -- "$new" "$file"
sync
if update "$7" "$8"; then
  rm -f -- "$5/boot-loader"
  echo "$7 failed; $1 is back as it was" >&2
else
  echo "$7 failed, and with the old $1, which is back, as well: mend that before this node boots again" >&2
fi
exit 1
