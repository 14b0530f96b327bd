# Judges a new /etc/default/grub ($1): a shell takes it, and with what grub.d adds the kernel is told the words of
# $expected, one a line and sorted, no more and no fewer.
sh -n "$1" || exit 1
told=$(
  set -f
  . "$1" >&2
  set +f
  for each in /etc/default/grub.d/*.cfg; do [ ! -r "$each" ] || . "$each" >&2; done
  set -f
  for word in $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT; do printf '%s\n' "$word"; done | LC_ALL=C sort
)
[ "$told" = "$expected" ] || {
  echo "with it the kernel would be told:" $told
  echo "something after its line in the file, or a file of /etc/default/grub.d, decides: add it there yourself"
  exit 1
}
