# fileSystems and swap: /etc/fstab for people, mount units for systemd, whose generator ignores disks in a container.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  fileSystem = types.submodule ({
    name,
    config,
    ...
  }: {
    options = {
      mountPoint = mkOption {
        type = types.str;
        default = name;
      };
      device = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      label = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      fsType = mkOption {
        type = types.str;
        default = "auto";
      };
      options = mkOption {
        type = types.listOf types.str;
        default = ["defaults"];
      };
      autoFormat = mkOption {
        type = types.bool;
        default = false;
      };
      autoResize = mkOption {
        type = types.bool;
        default = false;
      };
      neededForBoot = mkOption {
        type = types.bool;
        default = false;
      };
      noCheck = mkOption {
        type = types.bool;
        default = false;
      };
      depends = mkOption {
        type = types.listOf types.str;
        default = [];
      };
    };
    config.device = lib.mkIf (config.label != null) (lib.mkDefault "/dev/disk/by-label/${config.label}");
  });
  all = lib.sort (a: b: a.mountPoint < b.mountPoint) (lib.attrValues config.fileSystems);
in {
  options = {
    fileSystems = mkOption {
      type = types.attrsOf fileSystem;
      default = {};
    };
    swapDevices = mkOption {
      type = types.listOf (types.submodule {
        options = {
          device = mkOption {type = types.str;};
          size = mkOption {
            type = types.nullOr types.int;
            default = null;
          };
          priority = mkOption {
            type = types.nullOr types.int;
            default = null;
          };
          options = mkOption {
            type = types.listOf types.str;
            default = ["defaults"];
          };
        };
      });
      default = [];
    };
    zramSwap = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      memoryPercent = mkOption {
        type = types.int;
        default = 50;
      };
    };
  };
  config = {
    assertions =
      [
        {
          assertion = config.boot.isContainer || config.fileSystems ? "/";
          message = "The ‘fileSystems’ option does not specify your root file system.";
        }
      ]
      ++ map (fs: {
        assertion = fs.device != null || lib.elem fs.fsType ["tmpfs" "none" "overlay"];
        message = "fileSystems.\"${fs.mountPoint}\" has no device.";
      })
      all;
    systemd.mounts = map (fs: {
      what = fs.device;
      where = fs.mountPoint;
      type = fs.fsType;
      options = lib.concatStringsSep "," fs.options;
      wantedBy = lib.optional (!lib.elem "noauto" fs.options) "local-fs.target";
      before = ["local-fs.target"];
      unitConfig.DefaultDependencies = false;
      conflicts = ["umount.target"];
    }) (lib.filter (fs: fs.device != null && lib.hasPrefix "/dev/" fs.device && fs.mountPoint != "/") all);
    environment.etc.fstab.text =
      lib.concatMapStrings (fs: "${
        if fs.device == null
        then fs.fsType
        else fs.device
      } ${fs.mountPoint} ${fs.fsType} ${lib.concatStringsSep "," fs.options} 0 0\n")
      all
      + lib.concatMapStrings (swap: "${swap.device} none swap ${lib.concatStringsSep "," swap.options}\n") config.swapDevices;
  };
}
