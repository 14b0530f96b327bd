# Debian's sshd with the real module's options. An existing host key is kept; only missing ones are generated.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.services.openssh;
  off = mkOption {
    type = types.bool;
    default = false;
  };
  atom = types.nullOr (types.oneOf [types.bool types.int types.str (types.listOf types.str)]);
  show = v:
    if v == true
    then "yes"
    else if v == false
    then "no"
    else if lib.isList v
    then lib.concatStringsSep "," v
    else toString v;
  # lists of users and groups are separated by blanks, lists of algorithms by commas
  line = n: v: "${n} ${
    if lib.isList v && lib.elem n ["AllowUsers" "AllowGroups" "DenyUsers" "DenyGroups"]
    then toString v
    else show v
  }\n";
in {
  options.services.openssh = {
    enable = off;
    startWhenNeeded = off;
    openFirewall = mkOption {
      type = types.bool;
      default = true;
    };
    ports = mkOption {
      type = types.listOf types.port;
      default = [22];
    };
    listenAddresses = mkOption {
      type = types.listOf types.anything;
      default = [];
    };
    banner = mkOption {
      type = types.nullOr types.lines;
      default = null;
    };
    allowSFTP = mkOption {
      type = types.bool;
      default = true;
    };
    generateHostKeys = mkOption {
      type = types.bool;
      default = true;
    };
    # the real default starts with an RSA key of 4096 bits, which takes seconds to generate
    hostKeys = mkOption {
      type = types.listOf types.attrs;
      default = [
        {
          type = "ed25519";
          path = "/etc/ssh/ssh_host_ed25519_key";
        }
      ];
    };
    authorizedKeysFiles = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    authorizedKeysInHomedir = mkOption {
      type = types.bool;
      default = true;
    };
    extraConfig = mkOption {
      type = types.lines;
      default = "";
    };
    knownHosts = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    settings = mkOption {
      default = {};
      type = types.submodule {
        freeformType = types.attrsOf atom;
        options = {
          PermitRootLogin = mkOption {
            type = types.enum ["yes" "without-password" "prohibit-password" "forced-commands-only" "no"];
            default = "prohibit-password";
          };
          PasswordAuthentication = mkOption {
            type = types.bool;
            default = true;
          };
          KbdInteractiveAuthentication = mkOption {
            type = types.bool;
            default = true;
          };
          X11Forwarding = off;
          UseDns = off;
          StrictModes = mkOption {
            type = types.bool;
            default = true;
          };
          LogLevel = mkOption {
            type = types.str;
            default = "INFO";
          };
          GatewayPorts = mkOption {
            type = types.str;
            default = "no";
          };
          AllowUsers = mkOption {
            type = types.nullOr (types.listOf types.str);
            default = null;
          };
          AllowGroups = mkOption {
            type = types.nullOr (types.listOf types.str);
            default = null;
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    services.openssh.authorizedKeysFiles = lib.optional cfg.authorizedKeysInHomedir "%h/.ssh/authorized_keys" ++ ["/etc/ssh/authorized_keys.d/%u"];
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall cfg.ports;
    users.users.sshd = {
      isSystemUser = true;
      group = "sshd";
    };
    users.groups.sshd = {};
    environment.etc = {
      # A single key exchange unless the fleet sets others: a client's part in OpenSSH's first choice takes 50 ms.
      "ssh/sshd_config".text = ''
        UsePAM yes
        ${lib.concatMapStrings (port: "Port ${toString port}\n") cfg.ports}${lib.concatStrings (lib.mapAttrsToList line (lib.filterAttrs (_: v: v != null) cfg.settings))}AuthorizedKeysFile ${toString cfg.authorizedKeysFiles}
        ${lib.concatMapStrings (k: "HostKey ${k.path}\n") cfg.hostKeys}PrintMotd no
        ${lib.optionalString cfg.allowSFTP "Subsystem sftp /usr/lib/openssh/sftp-server"}
        KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
        ${cfg.extraConfig}
      '';
      "ssh/ssh_config".text = "Host *\n  GlobalKnownHostsFile /etc/ssh/ssh_known_hosts\n${config.programs.ssh.extraConfig}";
      "ssh/moduli" = lib.mkIf false {text = "";};
    };
    systemd.services.sshd-keygen = lib.mkIf cfg.generateHostKeys {
      description = "SSH Host Keys Generation";
      unitConfig.ConditionFileNotEmpty = map (k: "|!${k.path}") cfg.hostKeys;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
      script =
        lib.concatMapStrings (k: ''
          if ! [ -s ${k.path} ]; then
            mkdir -p "$(dirname ${k.path})"
            rm -f ${k.path} ${k.path}.pub
            ssh-keygen -q -t ${k.type} ${lib.optionalString (k ? bits) "-b ${toString k.bits}"} -C "root@$(hostname)" -f ${k.path} -N ""
          fi
        '')
        cfg.hostKeys;
    };
    systemd.services.sshd = {
      description = "SSH Daemon";
      wantedBy = ["multi-user.target"];
      after = ["network.target" "sshd-keygen.service"];
      wants = ["sshd-keygen.service"];
      stopIfChanged = false;
      restartTriggers = [config.environment.etc."ssh/sshd_config".text];
      serviceConfig = {
        ExecStart = "/usr/sbin/sshd -D -f /etc/ssh/sshd_config";
        ExecReload = "/usr/bin/kill -HUP $MAINPID";
        KillMode = "process";
        Restart = "always";
        Type = "notify";
        RuntimeDirectory = "sshd";
        RuntimeDirectoryMode = "0755";
      };
    };
  };
}
