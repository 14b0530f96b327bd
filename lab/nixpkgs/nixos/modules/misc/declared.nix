# Options that configurations read even if they are not set. They have no effect here.
{
  lib,
  config,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  # the types are those of the real options
  text = default: mkOption {inherit default;};
  off = text false;
  on = text true;
  list = text [];
  set = text {};
  optional = text null;
  switch = {enable = off;};
in {
  options = {
    containers = set;
    time.timeZone = optional;
    i18n = {
      defaultLocale = text "en_US.UTF-8";
      extraLocaleSettings = set;
      supportedLocales = list;
    };
    console = {
      keyMap = text "us";
      font = optional;
      useXkbConfig = off;
      enable = on;
    };
    fonts = {
      packages = list;
      fontconfig = switch;
    };
    documentation = {
      enable = on;
      nixos.enable = on;
      man.enable = on;
    };
    hardware = {
      enableRedistributableFirmware = off;
      enableAllFirmware = off;
      cpu.amd.updateMicrocode = off;
      cpu.intel.updateMicrocode = off;
      graphics = {
        enable = off;
        extraPackages = list;
        enable32Bit = off;
      };
      bluetooth = {
        enable = off;
        powerOnBoot = on;
      };
      firmware = list;
    };
    powerManagement = {
      enable = on;
      cpuFreqGovernor = optional;
      powertop = switch;
    };
    programs = {
      bash = {
        enable = on;
        completion.enable = on;
        interactiveShellInit = text "";
        shellInit = text "";
      };
      zsh = switch;
      fish = switch;
      dconf = switch;
      hyprlock = switch;
      wayvnc = switch;
      git = {
        enable = off;
        config = set;
      };
      ssh = {
        knownHosts = mkOption {
          default = {};
          type = types.attrsOf (types.submodule ({
            name,
            config,
            ...
          }: {
            options = {
              hostNames = mkOption {
                type = types.listOf types.str;
                default = [name] ++ config.extraHostNames;
              };
              extraHostNames = mkOption {
                type = types.listOf types.str;
                default = [];
              };
              publicKey = mkOption {
                type = types.nullOr types.str;
                default = null;
              };
              publicKeyFile = mkOption {
                type = types.nullOr types.path;
                default = null;
              };
              certAuthority = off;
            };
          }));
        };
        extraConfig = mkOption {
          type = types.lines;
          default = "";
        };
        startAgent = off;
        package = mkOption {
          type = types.anything;
          default = "/usr";
        };
      };
      vim.enable = off;
      neovim.enable = off;
      nano.enable = on;
      command-not-found.enable = on;
      nix-ld = switch;
      direnv = switch;
      nh = switch;
    };
    services = {
      tailscale = {
        enable = off;
        port = mkOption {
          type = types.port;
          default = 41641;
        };
        interfaceName = text "tailscale0";
        authKeyFile = optional;
        extraUpFlags = list;
        useRoutingFeatures = text "none";
      };
      resolved = switch;
      udisks2 = switch;
      timesyncd.enable = on;
      fwupd = switch;
      fstrim = {
        enable = off;
        interval = text "weekly";
      };
      xserver = {
        enable = off;
        videoDrivers = list;
        xkb = {
          layout = text "us";
          variant = text "";
        };
      };
      displayManager = {
        enable = off;
        sddm = switch;
        gdm = switch;
      };
      desktopManager = {
        plasma6 = switch;
        gnome = switch;
      };
      pipewire = {
        enable = off;
        alsa.enable = off;
        pulse.enable = off;
      };
      printing = switch;
      avahi = switch;
      udev = {
        extraRules = mkOption {
          type = types.lines;
          default = "";
        };
        packages = list;
        enable = on;
      };
      logind = {settings.Login = set;};
      dbus = {
        enable = on;
        packages = list;
        implementation = text "dbus";
      };
      journald.extraConfig = mkOption {
        type = types.lines;
        default = "";
      };
      getty.autologinUser = optional;
      upower = switch;
      power-profiles-daemon = switch;
      fprintd = switch;
      cloud-init = switch;
      nginx = {
        enable = off;
        user = text "nginx";
        group = text "nginx";
        virtualHosts = set;
      };
      harmonia = switch;
      nix-serve = {
        enable = off;
        port = mkOption {
          type = types.port;
          default = 5000;
        };
      };
      github-runners = set;
      hercules-ci-agent = switch;
      smartd = switch;
      acpid = switch;
    };
    virtualisation = {
      docker = {
        enable = off;
        package = mkOption {
          type = types.package;
          default = pkgs.docker;
        };
        autoPrune = {
          enable = off;
          dates = text "weekly";
        };
      };
      podman = switch;
      libvirtd = switch;
      oci-containers = {
        backend = text "podman";
        containers = set;
      };
    };
    system.autoUpgrade = {
      enable = off;
      flake = optional;
      dates = text "04:40";
      flags = list;
      allowReboot = off;
      operation = text "switch";
      randomizedDelaySec = text "0";
      persistent = on;
    };
    xdg.portal = switch;
  };

  config.environment.etc."ssh/ssh_known_hosts".text = lib.concatStrings (lib.mapAttrsToList (_: known:
    lib.optionalString (known.publicKey != null) "${lib.optionalString known.certAuthority "@cert-authority "}${lib.concatStringsSep "," known.hostNames} ${known.publicKey}\n")
  config.programs.ssh.knownHosts);
}
