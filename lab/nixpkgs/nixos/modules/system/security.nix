# sudo, doas and PAM in the form that Debian's programs read.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.security.sudo;
  off = mkOption {
    type = types.bool;
    default = false;
  };
  names = mkOption {
    type = types.listOf (types.either types.str types.int);
    default = [];
  };
  command = types.either types.str (types.submodule {
    options = {
      command = mkOption {type = types.str;};
      options = mkOption {
        type = types.listOf types.str;
        default = [];
      };
    };
  });
  showCommand = c:
    if lib.isString c
    then c
    else lib.concatMapStrings (o: "${o}: ") c.options + c.command;
  who = rule:
    map (u:
      if lib.isInt u
      then "#${toString u}"
      else u)
    rule.users
    ++ map (g:
      if lib.isInt g
      then "%#${toString g}"
      else "%${g}")
    rule.groups;
  showRule = rule: lib.concatMapStrings (w: "${w} ${rule.host}=(${rule.runAs}) ${lib.concatMapStringsSep ", " showCommand rule.commands}\n") (who rule);
  # doas.conf(5); of several rules that fit the last one counts
  doas = config.security.doas;
  showDoas = rule: let
    identities = map toString rule.users ++ map (g: ":${toString g}") rule.groups;
    options = lib.optional rule.noPass "nopass" ++ lib.optional rule.keepEnv "keepenv";
    target = lib.optionals (rule.runAs != null) ["as" rule.runAs] ++ lib.optionals (rule.cmd != null) ["cmd" rule.cmd];
  in
    lib.concatMapStrings (who: "${lib.concatStringsSep " " (["permit"] ++ options ++ [who] ++ target)}\n") identities;
  pam = first: {
    text = ''
      account required pam_unix.so
      ${first}auth sufficient pam_unix.so nullok
      auth required pam_deny.so
      password sufficient pam_unix.so nullok yescrypt
      session required pam_env.so readenv=1 envfile=/etc/environment
      session required pam_unix.so
    '';
  };
in {
  options.security = {
    sudo = {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      wheelNeedsPassword = mkOption {
        type = types.bool;
        default = true;
      };
      execWheelOnly = off;
      extraRules = mkOption {
        default = [];
        type = types.listOf (types.submodule {
          options = {
            users = names;
            groups = names;
            host = mkOption {
              type = types.str;
              default = "ALL";
            };
            runAs = mkOption {
              type = types.str;
              default = "ALL:ALL";
            };
            commands = mkOption {
              type = types.listOf command;
              default = [];
            };
          };
        });
      };
      extraConfig = mkOption {
        type = types.lines;
        default = "";
      };
    };
    sudo-rs = {
      enable = off;
      wheelNeedsPassword = mkOption {default = true;};
    };
    doas = {
      enable = off;
      wheelNeedsPassword = mkOption {
        type = types.bool;
        default = true;
      };
      extraRules = mkOption {
        default = [];
        type = types.listOf (types.submodule {
          options = {
            users = names;
            groups = names;
            noPass = off;
            keepEnv = off;
            runAs = mkOption {
              type = types.nullOr types.str;
              default = null;
            };
            cmd = mkOption {
              type = types.nullOr types.str;
              default = null;
            };
          };
        });
      };
      extraConfig = mkOption {
        type = types.lines;
        default = "";
      };
    };
    pam.sshAgentAuth.enable = off;
    pam.rssh.enable = off;
    polkit.enable = off;
    rtkit.enable = off;
    pam.services = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    wrappers = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    pki.certificateFiles = mkOption {
      type = types.listOf types.path;
      default = [];
    };
    pki.certificates = mkOption {
      type = types.listOf types.str;
      default = [];
    };
  };

  config = {
    security.sudo.extraRules = lib.mkMerge [
      (lib.mkOrder 400 [
        {
          users = ["root"];
          commands = [
            {
              command = "ALL";
              options = ["SETENV"];
            }
          ];
        }
      ])
      (lib.mkOrder 600 [
        {
          groups = ["wheel"];
          commands = [
            {
              command = "ALL";
              options = ["SETENV"] ++ lib.optional (!cfg.wheelNeedsPassword) "NOPASSWD";
            }
          ];
        }
      ])
    ];
    security.doas.extraRules = lib.mkOrder 600 [
      {
        groups = ["wheel"];
        noPass = !doas.wheelNeedsPassword;
      }
    ];
    environment.etc =
      lib.optionalAttrs doas.enable {
        "doas.conf" = {
          mode = "0440";
          text = ''
            ${lib.concatMapStrings showDoas doas.extraRules}
            ${doas.extraConfig}
            permit nopass keepenv root
          '';
        };
        "pam.d/doas" = pam "";
      }
      // lib.optionalAttrs cfg.enable {
        sudoers = {
          mode = "0440";
          text = ''
            Defaults env_keep+=SSH_AUTH_SOCK
            Defaults secure_path="/run/wrappers/bin:/run/current-system/sw/bin:/usr/sbin:/usr/bin"
            Defaults !lecture
            ${lib.concatMapStrings showRule cfg.extraRules}
            ${cfg.extraConfig}
          '';
        };
      }
      // {"security/pam_env.conf".text = "";}
      // lib.genAttrs (map (s: "pam.d/${s}") ["sshd" "sudo" "login" "other" "passwd" "systemd-user"]) (_: pam "")
      // lib.genAttrs (map (s: "pam.d/${s}") ["su" "su-l" "runuser" "runuser-l" "chpasswd" "useradd"]) (_: pam "auth sufficient pam_rootok.so\n");
  };
}
