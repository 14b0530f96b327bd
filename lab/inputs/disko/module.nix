# disko.devices: the content of the disks, from which fileSystems and the scripts are generated.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.disko;
  size = types.either (types.enum ["100%"]) (types.strMatching "[0-9]+[KMGTP]?");

  content = types.submodule {
    options = {
      type = mkOption {type = types.enum ["filesystem" "swap"];};
      format = mkOption {
        type = types.nullOr (types.enum ["vfat" "ext2" "ext3" "ext4"]);
        default = null;
      };
      mountpoint = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      mountOptions = mkOption {
        type = types.listOf types.str;
        default = ["defaults"];
      };
      extraArgs = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      device = mkOption {
        type = types.nullOr types.str;
        default = null;
        internal = true;
      };
      discardPolicy = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      resumeDevice = mkOption {
        type = types.bool;
        default = false;
      };
    };
  };
  partition = disk:
    types.submodule ({
      name,
      config,
      ...
    }: {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
        };
        label = mkOption {
          type = types.str;
          default = "disk-${disk.name}-${config.name}";
        };
        type = mkOption {
          type = types.strMatching "[A-Fa-f0-9]{4}|[A-Fa-f0-9-]{36}";
          default =
            if config.content != null && config.content.type == "swap"
            then "8200"
            else "8300";
        };
        size = mkOption {
          type = size;
          default = "0";
        };
        priority = mkOption {
          type = types.int;
          # the boot partition of a BIOS first, the one with the remaining space last
          default =
            if config.size == "100%"
            then 9001
            else if config.type == "EF02"
            then 100
            else 1000;
        };
        attributes = mkOption {
          type = types.listOf types.int;
          default = [];
        };
        content = mkOption {
          type = types.nullOr content;
          default = null;
        };
        device = mkOption {
          type = types.str;
          default = "/dev/disk/by-partlabel/${config.label}";
          internal = true;
        };
      };
    });
  disk = types.submodule ({
    name,
    config,
    ...
  }: {
    options = {
      name = mkOption {
        type = types.str;
        default = name;
      };
      type = mkOption {
        type = types.enum ["disk"];
        default = "disk";
      };
      device = mkOption {
        type = types.strMatching "/.*";
        default = "/dev/disk/by-id/${name}";
      };
      preCreateHook = mkOption {
        type = types.lines;
        default = "";
      };
      content = mkOption {
        default = null;
        type = types.nullOr (types.submodule {
          options = {
            type = mkOption {type = types.enum ["gpt"];};
            partitions = mkOption {
              type = types.attrsOf (partition config);
              default = {};
            };
          };
        });
      };
    };
  });

  disks = lib.attrValues cfg.devices.disk;
  sorted = d:
    if d.content == null
    then []
    else lib.sort (a: b: a.priority < b.priority) (lib.attrValues d.content.partitions);
  partitions = lib.concatMap sorted disks;
  mounted =
    lib.sort (a: b: a.content.mountpoint < b.content.mountpoint)
    (lib.filter (p: p.content != null && p.content.type == "filesystem" && p.content.mountpoint != null) partitions);
  swaps = lib.filter (p: p.content != null && p.content.type == "swap") partitions;
  quote = lib.escapeShellArg;
  settle = d: ''
    partprobe ${quote d.device} || :
    udevadm trigger --subsystem-match=block
    udevadm settle --timeout 120
  '';

  destroy =
    ''
      umount -Rv ${quote cfg.rootMountPoint} || :
      if findmnt ${quote cfg.rootMountPoint} >/dev/null; then
        echo "${cfg.rootMountPoint} is still mounted; nothing was wiped" >&2
        exit 1
      fi
    ''
    + lib.concatMapStrings (d: ''
      # everything on ${d.device}: otherwise a new partition at an old one's start shows the old file system again
      for device in ${quote d.device}[0-9]* ${quote d.device}p[0-9]* ${quote d.device}-part[0-9]*; do
        [ -b "$device" ] || continue
        if findmnt --source "$device" >/dev/null; then
          echo "$device is mounted; nothing was wiped" >&2
          exit 1
        fi
        wipefs --all --force "$device"
      done
      # including its partition tables, with the second one at its end
      wipefs --all --force ${quote d.device}
      ${settle d}
    '')
    disks;

  # All partitions in one call, because every sgdisk that writes waits for a second.
  create =
    lib.concatMapStrings (d: let
      arguments = new:
        lib.escapeShellArgs (lib.concatLists (lib.imap1 (n: p: let
          number = toString n;
          end =
            if p.size == "100%"
            then "-0"
            else "+${p.size}";
        in
          lib.optional new "--new=${number}:0:${end}"
          ++ ["--partition-guid=${number}:R" "--change-name=${number}:${p.label}" "--typecode=${number}:${p.type}"]
          ++ map (bit: "--attributes=${number}:set:${toString bit}") p.attributes) (sorted d))
        ++ [d.device]);
      format = p: let
        inherit (p.content) extraArgs;
        make =
          if p.content.type == "swap"
          then "mkswap"
          else "mkfs.${p.content.format}";
      in
        lib.optionalString (p.content != null)
        "if [ -z \"$(blkid --match-tag TYPE --output value ${quote p.device})\" ]; then ${make} ${lib.escapeShellArgs extraArgs} ${quote p.device}; fi\n";
    in ''
      ${d.preCreateHook}
      fresh=
      if ! blkid ${quote d.device} >&2; then fresh=--clear; fi
      sgdisk $fresh --align-end ${arguments true} || sgdisk ${arguments false}
      ${settle d}
      ${lib.concatMapStrings format (sorted d)}
    '')
    disks;

  mountAll =
    lib.concatMapStrings (p: let
      target = quote (cfg.rootMountPoint + p.content.mountpoint);
    in ''
      if ! findmnt ${quote p.device} ${target} >/dev/null 2>&1; then
        mount ${quote p.device} ${target} -t ${p.content.format} ${lib.concatMapStringsSep " " (o: "-o ${quote o}") p.content.mountOptions} -o X-mount.mkdir
      fi
    '')
    mounted;
  unmountAll = "umount -Rv ${quote cfg.rootMountPoint} || :\n";

  tools = lib.makeBinPath [pkgs.gptfdisk pkgs.systemdMinimal pkgs.parted pkgs.util-linux pkgs.dosfstools pkgs.e2fsprogs pkgs.gnugrep pkgs.bash];
  script = name: text:
    throwIfNoDisks (pkgs.writeShellScript name ''
      set -eux
      export PATH=${tools}:/usr/sbin:$PATH
      ${text}
    '');
  throwIfNoDisks = v:
    if disks == []
    then throw "No disks defined, did you forget to import your disko config?"
    else if lib.any (kind: cfg.devices.${kind} != {}) unmade
    then throw "The lab's disko supports partitions with file systems and swap, but not ${lib.concatMapStringsSep ", " (kind: "disko.devices.${kind}") (lib.filter (kind: cfg.devices.${kind} != {}) unmade)}."
    else v;
  # What the real one supports in addition to partitions.
  unmade = ["bcachefs_filesystems" "lvm_vg" "mdadm" "zpool"];
in {
  options.disko = {
    devices =
      {
        disk = mkOption {
          type = types.attrsOf disk;
          default = {};
        };
        nodev = mkOption {
          type = types.attrsOf types.anything;
          default = {};
        };
      }
      // lib.genAttrs unmade (_: mkOption {default = {};});
    rootMountPoint = mkOption {
      type = types.str;
      default = "/mnt";
    };
    enableConfig = mkOption {
      type = types.bool;
      default = true;
    };
    checkScripts = mkOption {
      type = types.bool;
      default = false;
    };
    memSize = mkOption {
      type = types.int;
      default = 1024;
    };
  };

  _known = [(lib.knownOptions "disko")];
  config = {
    fileSystems = lib.mkIf cfg.enableConfig (lib.listToAttrs (map (p:
      lib.nameValuePair p.content.mountpoint {
        inherit (p) device;
        fsType = p.content.format;
        options = p.content.mountOptions;
      })
    mounted));
    swapDevices = lib.mkIf cfg.enableConfig (map (p: {inherit (p) device;}) swaps);
    boot.loader.grub.devices = lib.mkIf cfg.enableConfig (map (d: d.device) (lib.filter (d: lib.any (p: p.type == "EF02") (sorted d)) disks));

    system.build = rec {
      diskoScript = script "disko" (destroy + create + mountAll);
      destroyScript = script "disko-destroy" destroy;
      formatScript = script "disko-format" create;
      mountScript = script "disko-mount" mountAll;
      unmountScript = script "disko-unmount" unmountAll;
      diskoScriptNoDeps = diskoScript;
      # newer ones are directories with a program
      destroyFormatMount = pkgs.writeShellScriptBin "disko-destroy-format-mount" ''exec ${diskoScript} "$@"'';
      formatMount = pkgs.writeShellScriptBin "disko-format-mount" "set -eu\n${formatScript}\nexec ${mountScript}";
      format = pkgs.writeShellScriptBin "disko-format" "exec ${formatScript}";
      mount = pkgs.writeShellScriptBin "disko-mount" "exec ${mountScript}";
      unmount = pkgs.writeShellScriptBin "disko-unmount" "exec ${unmountScript}";
    };
  };
}
