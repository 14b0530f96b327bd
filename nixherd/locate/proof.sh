# nixherd-proof: reads what tells this machine from others
# TOKEN marks its lines. Nothing but what every shell has in itself: no other program runs. A card that an unprivileged
# user may have made is left out. Words are quoted with " alone, so that the script can stand in single quotes for any
# login shell.
say() { printf "%s %s %s\n" TOKEN "$1" "$2"; }
while read -r line || [ -n "$line" ]; do say release "$line"; done </etc/os-release
read -r line </proc/sys/kernel/random/boot_id && say boot_id "$line"
for card in /sys/class/net/*; do
  [ -e "$card/tun_flags" ] || [ ! -r "$card/address" ] || { read -r line <"$card/address" && say mac "$line"; }
done
if [ -r /sys/class/dmi/id/product_uuid ]; then
  read -r line </sys/class/dmi/id/product_uuid && say uuid "$line"
fi
say end -
