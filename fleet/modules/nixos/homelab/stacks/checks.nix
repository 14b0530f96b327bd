# Checks beyond the types. Every message says where the error is, and what to do.
{
  cfg,
  config,
  hasSops,
  lib,
  stacks,
}: let
  each = f: lib.concatLists (lib.mapAttrsToList f stacks);
  eachService = f: each (name: stack: lib.concatLists (lib.mapAttrsToList (service: s: f "homelab.stacks.${name}.services.${service}" stack s) stack.services));
  refuse = wrong: message: {
    assertion = !wrong;
    inherit message;
  };

  absolute = path: lib.hasPrefix "/" path && !lib.elem ".." (lib.splitString "/" path);
  path = where: value: refuse (!absolute value) "${where} is \"${value}\": it must be an absolute path without `..`. What the container keeps goes into `data`, by a name alone.";
  isName = value: builtins.match "[a-zA-Z0-9_][a-zA-Z0-9_.-]*" value != null;

  # Tags whose image changes: latest, stable, alpine; a tag without a digit is not a version.
  moves = tag: lib.hasPrefix "latest" tag || builtins.match ".*[0-9].*" tag == null;
  image = where: value: let
    parts = builtins.match "([A-Za-z0-9_.:-]+/)*[a-z0-9_.-]+(:([A-Za-z0-9_][A-Za-z0-9_.-]*))?(@sha256:[0-9a-f]{64})?" value;
    tag = lib.elemAt parts 2;
    digest = lib.elemAt parts 3;
  in
    if parts == null
    then refuse true "${where}.image is \"${value}\", which is not an image: NAME:TAG or NAME:TAG@sha256:DIGEST, the digest of 64 hex digits."
    else
      refuse (digest == null && (tag == null || moves tag))
      "${where}.image is \"${value}\", whose image changes over time: use a version as its tag, or add the digest (@sha256:…).";

  # Variables whose names suggest secrets (NAME_FILE and the like only hold a path), and URLs with a password.
  isSecret = name: value:
    (value != "" && builtins.match ".*(PASSWORD|PASSWD|(DB|_)PASS|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|SECRET_KEY)" (lib.toUpper name) != null)
    || builtins.match ".*://[^/:@]*:[^/@]+@.*" value != null;

  published = each (name: stack:
    lib.concatLists (lib.mapAttrsToList (service: s:
      map (p: {
        where = "homelab.stacks.${name}.services.${service}";
        inherit (p) protocol;
        port = p.host;
        address =
          if s.hostNetwork
          then "0.0.0.0"
          else p.address;
      })
      s.ports)
    stack.services));
  # The machine's own listening ports, as far as its configuration shows them.
  machinePorts =
    lib.optionals config.services.openssh.enable (map (port: {
        where = "services.openssh";
        address = "0.0.0.0";
        protocol = "tcp";
        inherit port;
      })
      config.services.openssh.ports)
    ++ lib.optionals config.services.nginx.enable (map (port: {
      where = "services.nginx";
      address = "0.0.0.0";
      protocol = "tcp";
      inherit port;
    }) [80 443]);
  everywhere = address: lib.elem address ["" "0.0.0.0" "::" "[::]"];
  clash = a: b: everywhere a.address || everywhere b.address || a.address == b.address;
  # Grouped by port, which is fast for many.
  ports = let
    byPort = lib.groupBy (p: "${p.protocol} port ${toString p.port}") (machinePorts ++ published);
    pairs = entries: lib.concatLists (lib.imap1 (n: a: map (b: {inherit a b;}) (lib.filter (clash a) (lib.drop n entries))) entries);
  in
    lib.concatLists (lib.mapAttrsToList (port: entries:
      map ({
        a,
        b,
      }:
        refuse true "${a.where} and ${b.where} both use ${port} of the machine: give ${b.where} another `host` port, or give each its own address.")
      (pairs entries))
    byPort);
in
  [(refuse (!config.virtualisation.docker.enable) "homelab.stacks needs docker: virtualisation.docker.enable must be enabled, or the stacks disabled (homelab.stacks.<name>.enable = false).")]
  ++ ports
  ++ eachService (where: stack: s:
    [(image where s.image)]
    ++ lib.concatLists (lib.mapAttrsToList (name: d: [
        (refuse (!isName name) "${where}.data: \"${name}\" must consist of letters, digits, `_`, `.` and `-`: the directory is ${cfg.dataDirectory}/<stack>/<name>.")
        (path "${where}.data.${name}.target" d.target)
      ])
      s.data)
    ++ lib.concatMap (m: [(path "${where}.mounts: source" m.source) (path "${where}.mounts: target" m.target)]) s.mounts
    ++ (let
      targets = lib.mapAttrsToList (_: d: d.target) s.data ++ map (m: m.target) s.mounts;
    in [
      (refuse (lib.length (lib.unique targets) != lib.length targets) "${where} has two volumes at one path of the container: ${lib.concatStringsSep ", " targets}.")
      (refuse (s.hostNetwork && s.networks != []) "${where} has hostNetwork, so it cannot be in a network of the stack: remove one of the two.")
    ])
    ++ map (name: refuse (!stack.secrets ? ${name}) "${where}.secrets names \"${name}\", which the stack does not declare: add it to the stack's `secrets`, and its value to the sops file.") s.secrets
    ++ map (name: refuse (!stack.services ? ${name}) "${where}.dependsOn names \"${name}\", which is not a container of the stack; it has ${lib.concatStringsSep ", " (lib.attrNames stack.services)}.") s.dependsOn
    ++ map (name: refuse (name != "default" && !stack.networks ? ${name}) "${where}.networks names \"${name}\", which the stack does not declare: add it to the stack's `networks` (external = true where it is shared with other stacks).") s.networks
    ++ lib.mapAttrsToList (name: value:
      refuse (isSecret name (toString value))
      "${where}.environment.${name} would be in the Nix store, which every user can read: put it into the sops file, as a line of one of the stack's `secrets`.")
    s.environment)
  ++ each (name: stack:
    [
      (refuse (builtins.match "[a-z0-9][a-z0-9_-]*" name == null) "homelab.stacks.${name}: docker compose wants names of lower-case letters, digits, `_` and `-`.")
      (refuse (!lib.all isName (lib.attrNames stack.services)) "homelab.stacks.${name}.services: names of letters, digits, `_`, `.` and `-`; here are ${lib.concatStringsSep ", " (lib.attrNames stack.services)}.")
      (refuse (stack.services == {}) "homelab.stacks.${name}.services has no container.")
      (refuse (stack.secrets != {} && !hasSops) "homelab.stacks.${name}.secrets needs sops-nix: add its nixosModules.sops to the machine's modules.")
    ]
    ++ lib.mapAttrsToList (secret: s:
      refuse (s.sopsFile == null || !builtins.pathExists s.sopsFile) (
        "homelab.stacks.${name}.secrets.${secret}"
        + (
          if s.sopsFile == null
          then " has no file: set homelab.docker.sopsFile or its own sopsFile."
          else ".sopsFile is ${toString s.sopsFile}, which is not there: make it with sops, and `git add` it (a flake sees only what git knows)."
        )
      ))
    stack.secrets)
