# What nixherd asks of a flake's configurations: functions from `nixosConfigurations` or `homeConfigurations` to values
# that JSON has words for. `mark` begins what is traced before a host is evaluated, so that its warnings are known to be
# its own; `rootAccess` is root_access.nix, `declared` declared.nix, `details` details.nix.
{
  mark,
  rootAccess,
  declared,
  details,
}: let
  # By name; null for a configuration that does not exist.
  each = ids: describe: configurations:
    builtins.listToAttrs (map (id: {
        name = id;
        value =
          if configurations ? ${id}
          then describe id configurations.${id}
          else null;
      })
      ids);
  marked = describe: id: configuration: builtins.trace "${mark}${id}" (describe configuration);

  # A home has nothing but what is built, and is described in the same shape, so that it is deployed like a system.
  unknown = {
    diskoScript = null;
    diskoDrv = null;
    hostname = "";
    revision = null;
    devices = [];
    bootLoader = null;
    grubEfi = false;
    guestAgent = null;
    ssh = null;
    system = null;
    rootAccess = null;
    declared = null;
    details = null;
    updates = null;
    verdict = null;
    health = {};
    healthOf = {};
  };
  # `or` wherever a flake need not have the attribute: what is missing is judged by those who need it.
  built = {config, ...}: let
    inherit (config.system) build;
    # disko's script of a machine without disks of its own is an error
    disko =
      if (config.disko.devices.disk or {}) == {}
      then {}
      else build.diskoScript or {};
  in {
    toplevel = build.toplevel.outPath;
    toplevelDrv = build.toplevel.drvPath;
    diskoScript = disko.outPath or null;
    diskoDrv = disko.drvPath or null;
  };
  healthOf = c: c.nixherd.healthChecks or {};
  # what of a machine brings it updates without anybody
  updatesOf = c: let
    pull = c.nixherd.pull or {};
  in {
    pulls = (pull.from or null) != null;
    pullsByTimer = (pull.from or null) != null && (pull.dates or null) != null;
    updates = c.homelab.update.enable or false;
    upgrades = c.system.autoUpgrade.enable or false;
  };
  tried = value: let
    result = builtins.tryEval (builtins.deepSeq value value);
  in
    if result.success
    then result.value
    else null;
  host = configuration: let
    c = configuration.config;
    loader = c.boot.loader or {};
    enabled = name: loader.${name}.enable or false;
  in
    built configuration
    // {
      hostname = c.networking.hostName;
      revision = c.system.configurationRevision or null;
      devices = map (disk: disk.device) (builtins.attrValues (c.disko.devices.disk or {}));
      bootLoader =
        if enabled "systemd-boot"
        then "systemd-boot"
        else if enabled "grub"
        then "grub"
        else null;
      grubEfi = loader.grub.efiSupport or false;
      guestAgent = c.services.qemuGuest.enable or null;
      ssh = c.services.openssh.enable or null;
      rootAccess = rootAccess c;
      health = healthOf c;
      # by specialisation; null of one that cannot be evaluated, whose system then cannot be built either
      healthOf = builtins.mapAttrs (_: each: tried (healthOf each.configuration)) (c.specialisation or {});
      system = configuration.pkgs.stdenv.hostPlatform.system or c.nixpkgs.hostPlatform.system or null;
      details = said configuration;
      updates = updatesOf c;
      verdict = configuration.verdict or null;
      declared = declared.host c;
    };
  # `shape` and `verdict` are what is beside a configuration in the flake of another tool (deploy_rs.nix, colmena.nix,
  # clan.nix).
  said = configuration: details.host configuration.config // {shape = configuration.shape or null;};
  home = configuration:
    unknown
    // {
      toplevel = configuration.activationPackage.outPath;
      toplevelDrv = configuration.activationPackage.drvPath;
      declared = declared.home (configuration.config or {});
      details = details.home (configuration.config or {});
    };
  # For nix-eval-jobs, which takes a derivation each: with what is asked of the host beside it.
  jobs = describe: toplevel: ids: configurations: let
    described = each ids describe configurations;
    job = id: configuration: toplevel configuration // {nixherd = described.${id};};
  in
    builtins.intersectAttrs described (builtins.mapAttrs job configurations);
in {
  hosts = ids: each ids (marked host);
  homes = ids: each ids (marked home);
  # What they declare of secrets, alone: also of those whose toplevel cannot be evaluated.
  hostsDeclared = ids: each ids (marked (configuration: declared.host configuration.config));
  homesDeclared = ids: each ids (marked (configuration: declared.home (configuration.config or {})));

  # What they say of how their machines are reached and deployed to, alone.
  hostsDetails = ids: each ids (marked said);
  homesDetails = ids: each ids (marked (configuration: details.home (configuration.config or {})));

  hostJobs = jobs (marked host) (c: c.config.system.build.toplevel);
  homeJobs = jobs (marked home) (c: c.activationPackage);

  # Systems that are not hosts of ours and are only built: nothing is asked that they may not have.
  systems = ids: each ids (_: configuration: unknown // built configuration);

  # The same hosts as they were if the flake's revision were another one: a value that beats every other (nixpkgs'
  # lib/modules.nix: mkOverride 0).
  asOf = revision: ids:
    each ids (_: configuration:
      (configuration.extendModules {
        modules = [
          {
            system.configurationRevision = {
              _type = "override";
              priority = 0;
              content = revision;
            };
          }
        ];
      }).config.system.build.toplevel.outPath);

  # What a host does for the others, by what its configuration enables.
  duties = id: configurations: let
    c = configurations.${id}.config;
    own = c.homelab or {};
    is = set: set.enable or false;
  in {
    "the fleet's binary cache" =
      is (own.cache or {}) || is (c.services.nix-serve or {}) || is (c.services.harmonia or {});
    "a runner of CI jobs" = is (own.services.githubRunner or {}) || (c.services.github-runners or {}) != {};
    "who updates the flake" = is (own.ci.rollingFlakeUpdate or {});
  };
}
