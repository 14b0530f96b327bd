# The result of systemd-boot's installer on the EFI system partition: an entry per generation and the default one.
# Arguments: toplevel, mount point, whether that must be mounted, timeout in seconds, generations to keep (0: all).
set -eu
export PATH=/usr/bin:/usr/sbin
toplevel=$1 esp=$2 must_be_mounted=$3 timeout=$4 limit=$5

if [[ $must_be_mounted == true ]] && ! mountpoint -q "$esp"; then
    echo "$esp is not mounted: the EFI system partition must be there" >&2
    exit 1
fi
mkdir -p "$esp/loader/entries" "$esp/EFI/nixos" "$esp/EFI/systemd" "$esp/EFI/BOOT"

put() { # path, text: write what differs
    [[ -e $1 && $(<"$1") == "$2" ]] && return
    printf '%s\n' "$2" >"$1.tmp"
    # the lab's vfat in user space cannot rename over a file
    mv -fT "$1.tmp" "$1" 2>/dev/null || { cat "$1.tmp" >"$1" && rm "$1.tmp"; }
}
stored() { # a kernel or initrd of the store by its name on the partition
    local file name
    file=$(readlink -f "$1")
    name=${file#/nix/store/}
    name=${name//\//-}.efi
    [[ -e $esp/EFI/nixos/$name ]] || cp "$file" "$esp/EFI/nixos/$name"
    wanted[$name]=1
    path=/EFI/nixos/$name
}

declare -A wanted=()
mapfile -t generations < <(ls -d /nix/var/nix/profiles/system-*-link 2>/dev/null | sed 's/.*system-\([0-9]*\)-link/\1/' | sort -n)
if ((limit > 0 && ${#generations[@]} > limit)); then generations=("${generations[@]: -limit}"); fi
machine_id=$(cat /etc/machine-id 2>/dev/null || true)
default=
for number in "${generations[@]}"; do
    link=/nix/var/nix/profiles/system-$number-link
    system=$(readlink -f "$link")
    [[ -e $system/init ]] || continue
    [[ $system == "$toplevel" ]] && default=$number
    stored "$system/kernel"; kernel=$path
    stored "$system/initrd"; initrd=$path
    entry=nixos-generation-$number.conf
    wanted[$entry]=1
    put "$esp/loader/entries/$entry" "title NixOS
sort-key nixos
version Generation $number NixOS $(<"$system/nixos-version"), built on $(date -u -r "$link" +%F)
linux $kernel
initrd $initrd
options init=$system/init $(<"$system/kernel-params")${machine_id:+
machine-id $machine_id}"
done
[[ -n $default ]] || echo "warning: $toplevel is not a generation of the system profile; the default entry stays" >&2
put "$esp/EFI/systemd/systemd-bootx64.efi" 'stand-in for systemd-boot'
put "$esp/EFI/BOOT/BOOTX64.EFI" 'stand-in for systemd-boot'
[[ -z $default ]] || put "$esp/loader/loader.conf" "timeout $timeout
default nixos-generation-$default.conf
console-mode keep"

for file in "$esp"/loader/entries/nixos-generation-*.conf "$esp"/EFI/nixos/*.efi; do
    [[ ! -e $file || -n ${wanted[${file##*/}]:-} ]] || rm -f "$file"
done
sync "$esp/loader/loader.conf" 2>/dev/null || true
