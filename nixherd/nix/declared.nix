# What a configuration declares of secrets, in words of JSON, without its toplevel: that fails while a file is not there.
# `sops-nix` is not asked for what it computes of a file's content. What throws is named in `unknown`, and null; what is
# missing in an older version, or in another module of the same name, is null.
let
  set = value:
    if builtins.isAttrs value
    then value
    else {};

  # { value, unknown }: those of these attributes that can be evaluated, each by itself.
  attributes = names: object: let
    tried = builtins.listToAttrs (map (name: {
        inherit name;
        value = builtins.tryEval (let value = object.${name} or null; in builtins.deepSeq value value);
      })
      names);
  in
    builtins.mapAttrs (_: each:
      if each.success
      then each.value
      else null)
    tried
    // {unknown = builtins.filter (name: !tried.${name}.success) names;};

  # A path stays what it is, for JSON would copy it to the store. A group is that of the owner by default, who need not
  # be a user of the machine: to ask for it then would be an error that nothing catches.
  ofSecret = users: secret:
    attributes ["name" "path" "sopsFile" "format" "key" "mode" "neededForUsers" "owner" "uid" "group" "gid"] (secret
      // {
        sopsFile = toString secret.sopsFile;
        group = group users secret;
      });
  ofTemplate = users: template:
    attributes ["name" "path" "mode" "owner" "uid" "group" "gid"] (template // {group = group users template;});
  group = users: object: let
    owner = object.owner or null;
  in
    if owner == null || users ? ${owner}
    then object.group or null
    else null;

  each = describe: objects: map (attribute: {inherit attribute;} // describe objects.${attribute}) (builtins.attrNames objects);

  ofSops = users: user: sops: let
    age = set (sops.age or {});
    gnupg = set (sops.gnupg or {});
  in {
    inherit user;
    symlinks = attributes ["defaultSymlinkPath"] sops;
    secrets = each (ofSecret users) (set (sops.secrets or {}));
    templates = each (ofTemplate users) (set (sops.templates or {}));
    identity = attributes ["ageKeyFile" "ageSshKeys" "gnupgHome" "gnupgSshKeys"] {
      ageKeyFile = age.keyFile or null;
      ageSshKeys = map toString (age.sshKeyPaths or []);
      gnupgHome = gnupg.home or null;
      gnupgSshKeys = map toString (gnupg.sshKeyPaths or []);
    };
  };

  # Whether another program than sops-nix is to bring secrets, and which.
  isThere = value: builtins.tryEval (set value != {}) == {
    success = true;
    value = true;
  };
  others = c:
    (
      if isThere (set (c.age or {})).secrets or {}
      then ["agenix"]
      else []
    )
    ++ (
      if isThere ((set ((set (c.clan or {})).core or {})).vars or {}).generators or {}
      then ["clan"]
      else []
    );

  home = user: c: let
    hasSops = builtins.tryEval (c ? sops);
  in
    if !hasSops.success
    then [{inherit user;}]
    else if hasSops.value
    then [(ofSops {} user c.sops)]
    else [];

  # By name; null where it cannot be evaluated.
  inside = describe:
    builtins.mapAttrs (_: object: let
      tried = builtins.tryEval (let value = describe object; in builtins.deepSeq value value);
    in
      if tried.success
      then tried.value
      else null);

  system = c: let
    users = set ((set (c.home-manager or {})).users or {});
  in {
    sops =
      (
        if c ? sops
        then [(ofSops (c.users.users or {}) null c.sops)]
        else []
      )
      ++ builtins.concatMap (user: home user users.${user}) (builtins.attrNames users);
    others = others c;
    # One that is not of a configuration, but of a path, has none.
    containers = inside (container: system (container.config or {})) (set (c.containers or {}));
  };
in {
  # A specialisation has the system's declarations, as it changes them.
  host = c:
    system c
    // {
      specialisations = inside (each: system each.configuration) (set (c.specialisation or {}));
    };
  home = c: {
    sops = home (c.home.username or "") c;
    others = others c;
  };
}
