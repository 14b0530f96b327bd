# The user's SSH client: an alias for every machine of the fleet, each with the host key that hosts.nix pins.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.ssh;
  knownHosts = ".ssh/known_hosts_fleet";

  # A placeholder: the machine has not been installed yet.
  isKey = key: builtins.isString key && builtins.match ".*[Pp][Ll][Aa][Cc][Ee][Hh][Oo][Ll][Dd][Ee][Rr].*|[[:space:]]*" key == null;
  hosts =
    lib.mapAttrs (id: host: {
      alias = host.sshAlias or null;
      hostname = host.hostname or id;
      user = host.user or null;
      # key type and key, without the comment
      key =
        if isKey (host.publicKey or null)
        then lib.concatStringsSep " " (lib.take 2 (lib.filter (word: builtins.isString word && word != "") (builtins.split "[[:space:]]+" host.publicKey)))
        else null;
    })
    config.homelab.fleet.hosts;
  named = lib.filterAttrs (_: host: host.alias != null) hosts;
  pinned = lib.filterAttrs (_: host: host.key != null) hosts;

  # Characters that would make a pattern, several words or another line in ssh's files.
  isName = text: builtins.isString text && builtins.match "[A-Za-z0-9_][A-Za-z0-9._:%-]*" text != null;
  odd = lib.concatLists (lib.mapAttrsToList (id: host:
    map (field: "${id}.${field.name} is ${builtins.toJSON field.value}, which cannot be written into ssh's configuration: use letters, digits, dots, dashes and underscores")
    (lib.filter (field: field.value != null && !isName field.value) [
      (lib.nameValuePair "sshAlias" host.alias)
      (lib.nameValuePair "hostname" host.hostname)
      (lib.nameValuePair "user" host.user)
    ])
    ++ lib.optional (host.key != null && builtins.match "[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+=*" host.key == null)
    "${id}.publicKey is not a public key: copy the line of the machine's /etc/ssh/ssh_host_ed25519_key.pub")
  hosts);
  # The ids of the hosts with each alias.
  owners = lib.zipAttrs (lib.mapAttrsToList (id: host: {${host.alias} = id;}) named);
  twice =
    lib.mapAttrsToList (alias: ids: "${lib.concatStringsSep " and " ids} have the same sshAlias, ${alias}: give each its own")
    (lib.filterAttrs (_: ids: lib.length ids > 1) owners);

  block = host:
    {HostName = host.hostname;}
    // lib.optionalAttrs (host.user != null) {User = host.user;}
    # Without a pinned key, ssh asks as usual.
    // lib.optionalAttrs (host.key != null) {
      UserKnownHostsFile = "~/${knownHosts}";
      StrictHostKeyChecking = true;
    }
    // lib.optionalAttrs (lib.elem host.alias cfg.forwardAgent) {ForwardAgent = true;};
in {
  options.homelab.ssh = {
    enable = mkEnableOption "the user's SSH client configuration (it writes ~/.ssh/config), with an alias for every host of the fleet";
    forwardAgent = mkOption {
      type = types.listOf types.str;
      default = [];
      example = ["doc1"];
      description = ''
        The aliases of the hosts that the agent is forwarded to. Root on such a host can use every key in the agent while
        you are logged in: name only hosts that you trust as much as this one.
      '';
    };
    identityFiles = mkOption {
      type = types.listOf types.str;
      default = [];
      example = ["~/.ssh/id_ed25519"];
      description = "The private keys to offer; if empty, `ssh`'s defaults.";
    };
  };

  config = mkIf cfg.enable {
    assertions =
      map (what: {
        assertion = false;
        message = "homelab.ssh: hosts.nix: ${what}";
      }) (odd ++ twice)
      ++ map (alias: {
        assertion = owners ? ${alias};
        message = "homelab.ssh.forwardAgent: no host has the sshAlias ${alias}; use one of ${lib.concatStringsSep ", " (lib.attrNames owners)}";
      })
      cfg.forwardAgent;

    programs.ssh = {
      enable = true;
      # The defaults are ssh's own, plus the settings below.
      enableDefaultConfig = mkDefault false;
      settings =
        lib.mapAttrs' (_: host: lib.nameValuePair host.alias (block host)) named
        // {
          "*" =
            {
              ForwardAgent = mkDefault false;
              ServerAliveInterval = mkDefault 30;
              ServerAliveCountMax = mkDefault 4;
            }
            // lib.optionalAttrs (cfg.identityFiles != []) {IdentityFile = cfg.identityFiles;};
        };
    };

    # Separate from ~/.ssh/known_hosts, which remains the user's own.
    home.file.${knownHosts} = mkIf (pinned != {}) {
      text = lib.concatStrings (lib.mapAttrsToList (_: host: let
        names = lib.unique ([host.hostname] ++ lib.optional (host.alias != null) host.alias);
      in "${lib.concatStringsSep "," names} ${host.key}\n")
      pinned);
    };
  };
}
