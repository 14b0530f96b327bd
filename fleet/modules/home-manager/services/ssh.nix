# The user's SSH client: a short name for every machine of the fleet, each accepted by the key that hosts.nix pins.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.ssh;
  knownHosts = ".ssh/known_hosts_fleet";

  # A key that says so is not there yet: the machine has not been installed.
  isKey = key: builtins.isString key && builtins.match ".*[Pp][Ll][Aa][Cc][Ee][Hh][Oo][Ll][Dd][Ee][Rr].*|[[:space:]]*" key == null;
  hosts =
    lib.mapAttrs (id: host: {
      alias = host.sshAlias or null;
      hostname = host.hostname or id;
      user = host.user or null;
      # the kind and the key, without the comment
      key =
        if isKey (host.publicKey or null)
        then lib.concatStringsSep " " (lib.take 2 (lib.filter (word: builtins.isString word && word != "") (builtins.split "[[:space:]]+" host.publicKey)))
        else null;
    })
    config.homelab.fleet.hosts;
  named = lib.filterAttrs (_: host: host.alias != null) hosts;
  pinned = lib.filterAttrs (_: host: host.key != null) hosts;

  # What would be a pattern, several words or another line in ssh's files.
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
  # The ids of the hosts of each alias.
  owners = lib.zipAttrs (lib.mapAttrsToList (id: host: {${host.alias} = id;}) named);
  twice =
    lib.mapAttrsToList (alias: ids: "${lib.concatStringsSep " and " ids} have the same sshAlias, ${alias}: give each its own")
    (lib.filterAttrs (_: ids: lib.length ids > 1) owners);

  block = host:
    {HostName = host.hostname;}
    // lib.optionalAttrs (host.user != null) {User = host.user;}
    # Where no key is pinned, ssh asks as everywhere.
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
        The aliases of the hosts that the agent is forwarded to. Root of such a host can use every key in the agent while
        one is logged in: name only hosts that are trusted as much as this one.
      '';
    };
    identityFiles = mkOption {
      type = types.listOf types.str;
      default = [];
      example = ["~/.ssh/id_ed25519"];
      description = "The private keys that are offered; with none, those that `ssh` itself looks for.";
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
        message = "homelab.ssh.forwardAgent: no host has the sshAlias ${alias}: write one of ${lib.concatStringsSep ", " (lib.attrNames owners)}";
      })
      cfg.forwardAgent;

    programs.ssh = {
      enable = true;
      # The defaults are ssh's own, and what is below.
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

    # Apart from ~/.ssh/known_hosts, which stays the user's own.
    home.file.${knownHosts} = mkIf (pinned != {}) {
      text = lib.concatStrings (lib.mapAttrsToList (_: host: let
        names = lib.unique ([host.hostname] ++ lib.optional (host.alias != null) host.alias);
      in "${lib.concatStringsSep "," names} ${host.key}\n")
      pinned);
    };
  };
}
