# What a configuration says of how its machine is reached and deployed to: the options of our module, which it need not
# import, and what it says of itself. `host` is of a system's config, `home` of a home's.
let
  # Their checks are read with the rest of a host. `access` may be a set, with what a machine needs for it beside; the
  # usual one is not said.
  options = c: let
    found = named (c.nixherd or {});
    access = found.access or null;
    kind =
      if builtins.isAttrs access
      then access.kind or null
      else access;
  in
    found
    // {
      access =
        if kind == "shell"
        then null
        else kind;
    };
  named =
    builtins.intersectAttrs {
      access = null;
      address = null;
      become = null;
      buildOn = null;
      canary = null;
      jump = null;
      port = null;
      publicKey = null;
      role = null;
      tags = null;
      user = null;
      wave = null;
    };
in {
  host = c: let
    openssh = c.services.openssh or {};
    users = c.users.users or {};
    hasKey = user: let
      keys = user.openssh.authorizedKeys or {};
    in
      keys.keys or [] ++ keys.keyFiles or [] != [];
    rootMayLogIn = builtins.elem (openssh.settings.PermitRootLogin or "prohibit-password") [
      "yes"
      true
      "prohibit-password"
      "without-password"
    ];
    inWheel = name: builtins.elem "wheel" (users.${name}.extraGroups or []);
  in {
    options = options c;
    hostname = c.networking.hostName or null;
    ports = openssh.ports or [];
    # who has a key and is root, or may become it
    logins =
      (
        if rootMayLogIn && hasKey (users.root or {})
        then ["root"]
        else []
      )
      ++ builtins.filter (name: name != "root" && inWheel name && hasKey users.${name}) (builtins.attrNames users);
    user = null;
    homeDirectory = null;
  };

  home = c: {
    options = options c;
    hostname = null;
    ports = [];
    logins = [];
    user = c.home.username or null;
    homeDirectory = c.home.homeDirectory or null;
  };
}
