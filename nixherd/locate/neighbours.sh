# nixherd-neighbours: reads at which addresses network cards were seen
# TOKEN begins the lines that part what is read. Words are quoted with " alone, so that the script can stand in single
# quotes for any login shell. Some of the files are readable by root alone. At most 512 KiB of each table and file are
# read, the end of a file where there is more; 8 servers that run are asked where their leases are.
PATH="$PATH:/run/current-system/sw/bin:/usr/sbin:/sbin"
part() { printf "\n%s %s\n" TOKEN "$1"; }
leases() {
  kind=$1; shift
  for file; do [ ! -f "$file" ] || [ ! -r "$file" ] || { part "$kind"; tail -c 524288 "$file"; }; done
}
told() { sed -n "s/^ *dhcp-leasefile *= *//p" "$1" | while IFS= read -r file; do leases dnsmasq "$file"; done; }
running() {
  before=; while IFS= read -r word; do
    case "$before $word" in
      *" --dhcp-leasefile="/* | *" --leasefile="/* | *" --conf-file="/*) given=${word#*=};;
      *" -l"/* | *" -C"/*) given=${word#-?};;
      *) given=$word;;
    esac
    case "$before $word" in
      *" --dhcp-leasefile="/* | *" --leasefile="/* | *" -l"/* | "-l "/* | "--dhcp-leasefile "/*)
        leases dnsmasq "$given";;
      *" --conf-file="/* | *" -C"/* | "-C "/* | "--conf-file "/*) told "$given";;
      "-lf "/*) leases isc "$given";;
    esac
    before=$word
  done
}
{
  part now; date +%s
  part neighbours; ip neighbour show | head -c 524288
  part arp; head -c 524288 /proc/net/arp
  leases dnsmasq /var/lib/misc/dnsmasq.leases /var/lib/dnsmasq/dnsmasq.leases /var/lib/dnsmasq/*.leases \
    /tmp/dhcp.leases /etc/pihole/dhcp.leases /var/lib/libvirt/dnsmasq/*.leases
  for file in /etc/dnsmasq.conf /etc/dnsmasq.d/*; do told "$file"; done
  leases isc /var/lib/dhcp/dhcpd.leases /var/lib/dhcpd/dhcpd.leases /var/lib/dhcpd4/dhcpd.leases \
    /var/lib/dhcp/db/dhcpd.leases /config/dhcpd.leases /var/dhcpd/var/db/dhcpd.leases
  for each in $(grep -lxE "dnsmasq|dhcpd" /proc/[0-9]*/comm | head -n 8); do
    tr "\000" "\n" < "${each%comm}cmdline" | running
  done
  leases kea4 /var/lib/kea/kea-leases4.csv /var/lib/kea/dhcp4.leases /var/lib/private/kea/dhcp4.leases
  leases kea6 /var/lib/kea/kea-leases6.csv /var/lib/kea/dhcp6.leases /var/lib/private/kea/dhcp6.leases
  leases networkd /var/lib/systemd/network/dhcp-server-lease/*
  part end
} 2>/dev/null
