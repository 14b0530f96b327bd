# What deployments ask of a machine: what has to be seen before a new system is kept, and how far it lets them in.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nixherd;
  maybe = type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };

  # Closures are received by a user of no other use, and this program activates them; nothing else is run, whatever was
  # asked for.
  receiver = "nixherd-push";
  pushed = pkgs.writeShellScript "nixherd-pushed" ''
    exec ${pkgs.coreutils}/bin/env -i HOME=/root PATH=${lib.makeBinPath [config.nix.package pkgs.util-linux pkgs.coreutils]} \
      SSH_ORIGINAL_COMMAND="''${SSH_ORIGINAL_COMMAND:-}" \
      /bin/sh ${./pushed.sh} ${receiver} ${lib.escapeShellArg (toString cfg.trustedKeys)} ${import ./program.nix}
  '';
  # The machine pulls its configuration itself, and says in its last line what it runs then; before that, with what is
  # noted of its revision, what it ran and what it runs.
  triggered = pkgs.writeShellScript "nixherd-triggered" ''
    kind=system
    . ${./revisions.sh}
    runs() { noted_of "$(readlink -f /run/current-system)" && echo "''${noted:-$(readlink -f /run/current-system)}"; }
    echo "was=$(runs)"
    ${cfg.access.trigger} || exit
    echo "noted=$(runs)"
    readlink -f /run/current-system
  '';
  # sshd goes by the first line that has a key.
  material = key: builtins.match "(.* )?((ssh|ecdsa|sk)-[^ ]+ [^ ]+)( .*)?" key;
  plain = builtins.filter (line: !lib.hasInfix "command=" line) config.users.users.root.openssh.authorizedKeys.keys;
  alsoPlain = builtins.filter (key: builtins.any (line: same key line) plain) cfg.access.keys;
  same = one: other: let
    a = material one;
    b = material other;
  in
    if a == null || b == null
    then one == other
    else builtins.elemAt a 1 == builtins.elemAt b 1;
  command =
    if cfg.access.kind == "trigger"
    then triggered
    else pushed;
in {
  options.nixherd.healthChecks = mkOption {
    description = "Checks by name, each with one of unit, command, tcp and http; the machine asks itself.";
    default = {};
    type = types.attrsOf (types.submodule {
      options = {
        unit = maybe types.str "A unit that has to be active.";
        command = maybe types.str "A shell text, run by root, that has to end with 0.";
        tcp = maybe (types.either types.port types.str) "A port, or HOST:PORT, that has to take a connection.";
        http = maybe types.str "An http:// URL that has to answer.";
        status = maybe types.int "With which status; 200 unless said.";
        timeout = maybe types.int "Seconds in which it has to pass; 30 unless said.";
      };
    });
  };

  options.nixherd.trustedKeys = mkOption {
    type = types.listOf types.singleLineStr;
    default = [];
    description = "Public keys (NAME:BASE64) of those who sign closures for this machine: it takes them from anybody.";
  };

  options.nixherd.access = {
    kind = mkOption {
      type = types.enum ["shell" "push-closure" "trigger"];
      default = "shell";
      description = "What a deployment may do here; other than shell, its keys run one program and nothing else.";
    };
    keys = mkOption {
      type = types.listOf types.singleLineStr;
      default = [];
      description = "Public keys of those who deploy.";
    };
    trigger = mkOption {
      type = types.str;
      default = "systemctl start --wait ${
        if config.nixherd.pull.from == null
        then "nixos-upgrade"
        else "nixherd-pull"
      }.service";
      description = "What pulls and switches.";
    };
  };

  config = lib.mkMerge [
    {nix.settings.trusted-public-keys = cfg.trustedKeys;}
    (lib.mkIf (cfg.access.kind != "shell") {
      users.users.root.openssh.authorizedKeys.keys = map (key: "restrict,command=\"${command}\" ${key}") cfg.access.keys;
      services.openssh.settings.PermitRootLogin = "forced-commands-only";
      assertions = [
        {
          assertion = alsoPlain == [];
          message = "nixherd.access: ${lib.concatStringsSep ", " alsoPlain} is also among users.users.root.openssh.authorizedKeys.keys as it is, which comes first there: sshd would let it in no more; take it out of one of the two.";
        }
      ];
    })
    (lib.mkIf (cfg.access.kind == "push-closure") {
      users.users.${receiver} = {
        description = "Receives pushed closures";
        isSystemUser = true;
        group = receiver;
      };
      users.groups.${receiver} = {};
      assertions = [
        {
          assertion = cfg.trustedKeys != [];
          message = "nixherd.access.kind = \"push-closure\" takes signed closures alone: say who signs them, in nixherd.trustedKeys.";
        }
        {
          assertion = config.nix.settings.require-sigs && lib.intersectLists ["*" receiver "@${receiver}"] config.nix.settings.trusted-users == [];
          message = "nixherd.access.kind = \"push-closure\" takes signed closures alone: nix.settings.require-sigs has to be on, and ${receiver} no trusted user.";
        }
      ];
    })
  ];
}
