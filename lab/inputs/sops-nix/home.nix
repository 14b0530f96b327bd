# For Home Manager: secrets below ~/.config/sops-nix/secrets, decrypted by the user's systemd and when the home is
# activated. The lab's machines have no systemd of users: the activation runs the program itself there.
{
  config,
  lib,
  pkgs,
  ...
}: let
  cfg = config.sops;
  inherit (lib) mkOption types;
  inherit (import ./manifest.nix {inherit lib pkgs cfg;}) install manifest generateKey;
  ofHome = manifest "" cfg.secrets cfg.templates {
    secretsMountPoint = cfg.defaultSecretsMountPoint;
    symlinkPath = cfg.defaultSymlinkPath;
    userMode = true;
  };
  script = pkgs.writeShellScript "sops-nix-user" ''
    ${lib.optionalString cfg.age.generateKey (generateKey cfg.age.keyFile)}
    ${install} -ignore-passwd ${ofHome}
  '';
in {
  _known = [(lib.knownOptions "sops-nix-home")];
  options.sops =
    import ./options.nix {
      inherit lib pkgs config;
      symlinkPath = cfg.defaultSymlinkPath;
    }
    // {
      defaultSymlinkPath = mkOption {
        type = types.str;
        default = "${config.xdg.configHome}/sops-nix/secrets";
      };
      defaultSecretsMountPoint = mkOption {
        type = types.str;
        default = "%r/secrets.d";
      };
    };
  config = lib.mkMerge [
    (lib.mkIf (cfg.templates != {}) {
      sops.placeholder = lib.mapAttrs (name: _: lib.mkDefault "<SOPS:${builtins.hashString "sha256" name}:PLACEHOLDER>") cfg.secrets;
    })
    (lib.mkIf (cfg.secrets != {}) {
      assertions = [
        {
          assertion = cfg.gnupg.home != null || cfg.gnupg.sshKeyPaths != [] || cfg.age.keyFile != null || cfg.age.sshKeyPaths != [];
          message = "No key source configured for sops. Either set services.openssh.enable or set sops.age.keyFile or sops.gnupg.home";
        }
      ];
      systemd.user.services.sops-nix = {
        Unit.Description = "sops-nix activation";
        Service = {
          Type = "oneshot";
          ExecStart = "${script}";
        };
        Install.WantedBy = "default.target";
      };
      home.activation.sops-nix = {
        after = ["writeBoundary"];
        data = ''
          systemdStatus=$(systemctl --user is-system-running 2>&1 || true)
          if [[ $systemdStatus == running || $systemdStatus == degraded ]]; then
            systemctl restart --user sops-nix
          else
            echo "User systemd daemon not running. The lab runs its unit's program in its stead."
            export XDG_RUNTIME_DIR=''${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
            # a log-in makes it elsewhere
            [[ -d $XDG_RUNTIME_DIR ]] || sudo -n install -d -m 0700 -o "$(id -u)" -g "$(id -g)" "$XDG_RUNTIME_DIR"
            ${script}
          fi
          unset systemdStatus
        '';
      };
    })
  ];
}
