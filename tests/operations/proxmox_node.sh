# What stands on a Debian machine of the lab in the place of a node's own programs. Each notes what it is asked to do in
# /run/node/asked, and answers as the real ones were recorded to (dkms 3.0.10, proxmox-boot-tool of Proxmox VE 8 and 9).
me=$(basename "$0")
note() { echo "$me $*" >>/run/node/asked; }
grub_words() {
  . /etc/default/grub
  for each in /etc/default/grub.d/*.cfg; do [ ! -r "$each" ] || . "$each"; done
  printf '%s' "root=/dev/mapper/pve-root ro $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
}
kernels() { for each in /boot/vmlinuz-*; do echo "${each#/boot/vmlinuz-}"; done; }
case $me in
uname) cat /run/node/kernel ;;
modinfo)
  file=/lib/modules/$2/updates/dkms/vendor-reset.ko
  [ -e "$file" ] || exit 1
  case "$*" in
  *" -n "*) echo "$file" ;;
  *signer*) cat /run/node/signer ;;
  *) cksum <"$file" | cut -d ' ' -f 1 ;;
  esac
  ;;
dpkg-query)
  case "$*" in
  *pve-manager*) echo "install ok installed 9.0.3" ;;
  -S*) echo "proxmox-kernel-${2#/boot/vmlinuz-}-signed: $2" ;;
  *)
    echo "installed proxmox-default-kernel"
    echo "not-installed linux-image-amd64"
    for each in $(kernels); do echo "installed proxmox-kernel-$each-signed"; done
    ;;
  esac
  ;;
dpkg) while read -r each; do echo "ii  $each  1.0  all  x"; done </run/node/installed ;;
apt-get)
  note "$@"
  case "$*" in *" update"*) exit 0 ;; esac
  for each in "$@"; do
    case $each in
    proxmox-headers-[0-9]*)
      kernel=${each#proxmox-headers-}
      mkdir -p "/lib/modules/$kernel/build"
      : >"/lib/modules/$kernel/build/Makefile"
      ;;
    dkms) cp /usr/local/sbin/stand-in /usr/local/sbin/dkms ;;
    proxmox-*) ;;
    *) continue ;;
    esac
    echo "$each" >>/run/node/installed
  done
  ;;
update-grub)
  note "$@"
  [ ! -e /run/node/grub-fails ] || ! grep -q iommu /etc/default/grub || {
    echo "grub-mkconfig: syntax error in /boot/grub/grub.cfg.new" >&2
    exit 1
  }
  mkdir -p /boot/grub
  for each in $(kernels); do
    printf '\tlinux\t/boot/vmlinuz-%s %s\n' "$each" "$(grub_words)"
  done >/boot/grub/grub.cfg
  ;;
update-initramfs)
  note "$@"
  cat /etc/modprobe.d/*.conf >"/boot/initrd.img-$3"
  ;;
proxmox-boot-tool)
  case $1 in
  status) cat /run/node/tool ;;
  *)
    note "$@"
    cp /etc/kernel/cmdline /run/node/refreshed
    ;;
  esac
  ;;
dkms)
  action=$1 tree=/var/lib/dkms sources=/usr/src
  [ "$action" != --version ] || {
    echo dkms-3.0.10
    exit
  }
  [ "$action" = status ] || note "$@"
  shift
  while [ $# -gt 0 ]; do
    case $1 in
    -m) m=$2 ;;
    -v) v=$2 ;;
    -k) k=$2 ;;
    --dkmstree) tree=$2 ;;
    --sourcetree) sources=$2 ;;
    esac
    shift
  done
  own=$tree/$m/$v
  case $action in
  status)
    for own in "$tree/$m"/*/; do
      [ -e "$own" ] || continue
      v=$(basename "$own")
      [ -e "$own/source/dkms.conf" ] || {
        echo "Error! Could not locate dkms.conf file." >&2
        exit 0
      }
      rows=
      for state in "$own"/*/x86_64; do
        [ -e "$state" ] || continue
        rows=1 k=$(basename "$(dirname "$state")")
        [ -e "/lib/modules/$k/updates/dkms/vendor-reset.ko" ] && word=installed || word=built
        echo "$m/$v, $k, x86_64: $word"
      done
      [ -n "$rows" ] || echo "$m/$v: added"
    done
    ;;
  add)
    [ ! -e "$own" ] || {
      echo "Error! DKMS tree already contains: $m-$v" >&2
      exit 3
    }
    [ -e "$sources/$m-$v/dkms.conf" ] || exit 2
    mkdir -p "$own"
    ln -s "$sources/$m-$v" "$own/source"
    ;;
  build)
    [ -e "/lib/modules/$k/build/Makefile" ] || {
      echo "Error! Your kernel headers for kernel $k cannot be found at /lib/modules/$k/build." >&2
      exit 1
    }
    ! grep -q broken "$own/source/a.c" || {
      echo "Error! Bad return status for module build on kernel: $k (x86_64)" >&2
      exit 10
    }
    mkdir -p "$own/$k/x86_64"
    cp "$own/source/a.c" "$own/$k/x86_64/module"
    ;;
  install)
    mkdir -p "/lib/modules/$k/updates/dkms"
    cp "$own/$k/x86_64/module" "/lib/modules/$k/updates/dkms/vendor-reset.ko"
    ;;
  remove)
    [ -e "$own/source/dkms.conf" ] || {
      echo "Error! Could not locate dkms.conf file." >&2
      exit 0
    }
    rm -rf "$own" /lib/modules/*/updates/dkms/vendor-reset.ko
    ;;
  esac
  ;;
*) note "$@" ;; # what nobody is to ask for
esac
