# Kernels and boot loaders: stand-ins with the results of the real ones.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.boot;
  loader = cfg.loader;
  off = mkOption {
    type = types.bool;
    default = false;
  };
  on = mkOption {
    type = types.bool;
    default = true;
  };
  strings = mkOption {
    type = types.listOf types.str;
    default = [];
  };
  esp = loader.efi.efiSysMountPoint;
  inherit (cfg.kernelPackages) kernel;
  # The command that writes loader entries: the generation, the directory, whether that must be mounted, timeout, number.
  entries = mounted: limit:
    lib.concatStringsSep " " [
      "bash ${../../scripts/install-systemd-boot.sh} \"$1\""
      (lib.escapeShellArg esp)
      (lib.boolToString mounted)
      (toString (lib.defaultTo "menu-force" loader.timeout))
      (toString (lib.defaultTo 0 limit))
    ];
in {
  options.boot = {
    kernelPackages = mkOption {
      type = types.raw;
      default = pkgs.linuxPackages;
    };
    kernelParams = strings;
    kernelModules = strings;
    extraModulePackages = mkOption {
      type = types.listOf types.anything;
      default = [];
    };
    extraModprobeConfig = mkOption {
      type = types.lines;
      default = "";
    };
    blacklistedKernelModules = strings;
    kernelPatches = mkOption {
      type = types.listOf types.anything;
      default = [];
    };
    kernel.sysctl = mkOption {
      type = types.attrsOf (types.nullOr (types.oneOf [types.bool types.int types.str]));
      default = {};
    };
    consoleLogLevel = mkOption {
      type = types.int;
      default = 4;
    };
    isContainer = off;
    growPartition = off;
    supportedFilesystems = mkOption {
      type = types.either (types.listOf types.str) (types.attrsOf types.bool);
      default = {};
    };
    resumeDevice = mkOption {
      type = types.str;
      default = "";
    };
    plymouth.enable = off;
    zfs = {
      package = mkOption {
        type = types.anything;
        default = null;
      };
      enabled = off;
    };
    tmp = {
      useTmpfs = off;
      cleanOnBoot = off;
    };
    binfmt.emulatedSystems = strings;
    initrd = {
      availableKernelModules = strings;
      kernelModules = strings;
      supportedFilesystems = mkOption {
        type = types.either (types.listOf types.str) (types.attrsOf types.bool);
        default = {};
      };
      systemd.enable = off;
      verbose = on;
      luks.devices = mkOption {
        type = types.attrsOf types.anything;
        default = {};
      };
      secrets = mkOption {
        type = types.attrsOf types.anything;
        default = {};
      };
    };
    loader = {
      timeout = mkOption {
        type = types.nullOr types.int;
        default = 5;
      };
      efi = {
        canTouchEfiVariables = off;
        efiSysMountPoint = mkOption {
          type = types.str;
          default = "/boot";
        };
      };
      systemd-boot = {
        enable = off;
        configurationLimit = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        editor = on;
        consoleMode = mkOption {
          type = types.str;
          default = "keep";
        };
        memtest86.enable = off;
        graceful = off;
      };
      grub = {
        enable = mkOption {
          type = types.bool;
          default = !(cfg.isContainer || loader.systemd-boot.enable);
        };
        device = mkOption {
          type = types.str;
          default = "";
        };
        devices = strings;
        efiSupport = off;
        efiInstallAsRemovable = off;
        useOSProber = off;
        configurationLimit = mkOption {
          type = types.int;
          default = 100;
        };
        zfsSupport = off;
      };
    };
  };

  config = {
    boot.loader.grub.devices = lib.mkIf (loader.grub.device != "") [loader.grub.device];
    boot.kernelParams = ["loglevel=${toString cfg.consoleLogLevel}"];
    assertions = [
      {
        assertion = !loader.grub.enable || loader.grub.devices != [];
        message = "You must set the option ‘boot.loader.grub.devices’ or 'boot.loader.grub.mirroredBoots' to make the system bootable.";
      }
      {
        assertion = !(loader.grub.enable && loader.systemd-boot.enable);
        message = "Only one of the boot loaders grub and systemd-boot may be enabled.";
      }
    ];
    environment.etc."sysctl.d/60-nixos.conf".text = lib.concatStrings (lib.mapAttrsToList (n: v:
      lib.optionalString (v != null) "${n}=${
        if v == false
        then "0"
        else toString v
      }\n")
    cfg.kernel.sysctl);
    environment.etc."modules-load.d/nixos.conf".text = lib.concatMapStrings (m: m + "\n") cfg.kernelModules;
    # Different kernels are different files, so that "a reboot is needed" is detected as on real machines.
    system.build = {
      kernel = "${kernel}/bzImage";
      kernelModules = "${kernel}";
      initialRamdisk = pkgs.writeText "initrd-linux-${kernel.version}" "stand-in for the initrd of Linux ${kernel.version}: ${toString cfg.initrd.availableKernelModules}\n";
      installBootLoader =
        if loader.systemd-boot.enable
        then
          pkgs.writeShellScript "install-systemd-boot.sh" ''
            exec ${entries (config.fileSystems ? ${esp}) loader.systemd-boot.configurationLimit}
          ''
        else if loader.grub.enable
        then
          pkgs.writeShellScript "install-grub.sh" ''
            bash ${../../scripts/install-grub.sh} "$1"
            # The lab's firmware reads loader entries if the disk has a place for them.
            if mountpoint -q ${lib.escapeShellArg esp}; then exec ${entries true loader.grub.configurationLimit}; fi
          ''
        else pkgs.writeShellScript "install-no-boot-loader.sh" ": # nothing boots this machine by a loader of its own\n";
    };
  };
}
