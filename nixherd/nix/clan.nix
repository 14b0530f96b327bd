# From the outputs of a clan's flake to its NixOS configurations, each with what clan is told of it beside, as `shape`: in
# the inventory, and in the configuration itself. Of vars and facts the names alone are read.
outputs: let
  set = value:
    if builtins.isAttrs value
    then value
    else {};
  # where it is: as clan.inventory in a flake that passes all of clan on, else among what clan's own program reads
  internals = set (outputs.clanInternals or {});
  inventories = [
    (set (outputs.clan or {})).inventory or null
    (set (internals.inventoryClass or {})).inventory or null
    internals.inventory or null
  ];
  inventory = builtins.foldl' (found: next:
    if found == null
    then next
    else found)
  null
  inventories;
  machines = set ((set inventory).machines or {});

  # Secrets that clan brings to the machine by itself: not by the closure, as those of sops are that services need.
  brought = core: let
    vars = core.vars or {};
    facts = core.facts or {};
    bySops = store: store == "sops";
    goes = file: (file.secret or true) && (file.deploy or true);
    # those for partitioning are an installation's
    phased = file: let
      phase = file.neededFor or "services";
    in
      if bySops (vars.settings.secretStore or "sops")
      then phase == "activation"
      else phase != "partitioning";
    generators = set (vars.generators or {});
    ofVars = generator:
      map (file: "${generator}/${file}") (builtins.filter (file: let
        it = generators.${generator}.files.${file};
      in
        goes it && phased it) (builtins.attrNames (generators.${generator}.files or {})));
    services = set (facts.services or {});
    ofFacts = service: map (secret: "${service}/${secret}") (builtins.attrNames (services.${service}.secret or {}));
  in
    builtins.concatMap ofVars (builtins.attrNames generators)
    ++ (
      if bySops (facts.secretStore or "sops")
      then []
      else builtins.concatMap ofFacts (builtins.attrNames services)
    );
in
  builtins.mapAttrs (name: configuration: let
    inClan = (configuration.config or {}) ? clan && configuration.config.clan ? core;
    core =
      if inClan
      then configuration.config.clan.core
      else {};
    networking = core.networking or {};
    machine = set (machines.${name} or null);
    deploy = set (machine.deploy or null);
    # the inventory goes before the configuration, which is not looked at then
    said = key: let
      first = deploy.${key} or null;
    in {
      inInventory = first != null;
      value =
        if first != null
        then first
        else networking.${key} or null;
    };
  in
    configuration
    // {
      shape =
        if inClan || machines ? ${name}
        then {
          clan = {
            targetHost = said "targetHost";
            buildHost = said "buildHost";
            forwardAgent = said "forwardAgent";
            tags = machine.tags or [];
            requireExplicitUpdate = (core.deployment or {}).requireExplicitUpdate or false;
            secrets = brought core;
            generates = builtins.attrNames (set ((core.vars or {}).generators or {}));
          };
        }
        else null;
    })
  outputs.nixosConfigurations
