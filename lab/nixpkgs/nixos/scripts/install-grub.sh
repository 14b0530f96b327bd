# The result of GRUB's installer in /boot/grub: a menu entry per generation, the given one as default.
set -eu
export PATH=/usr/bin:/usr/sbin
toplevel=$1
mkdir -p /boot/grub
entry() { # title, toplevel
    printf "menuentry '%s' {\n  linux %s init=%s/init %s\n  initrd %s\n}\n" "$1" "$(readlink -f "$2/kernel")" "$2" "$(<"$2/kernel-params")" "$(readlink -f "$2/initrd")"
}
{
    echo 'set default=0'
    entry NixOS "$toplevel"
    for link in $(ls -d /nix/var/nix/profiles/system-*-link 2>/dev/null | sort -rV); do
        number=${link##*/system-}
        entry "NixOS - Configuration ${number%-link}" "$(readlink -f "$link")"
    done
} >/boot/grub/grub.cfg.tmp
mv -f /boot/grub/grub.cfg.tmp /boot/grub/grub.cfg
