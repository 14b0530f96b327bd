# config: has a machine that was just installed from it a way to root? true, false, or null where that cannot be told.
# A way is a password of root, a key that root may log in with, or a member of wheel who gets in and whom sudo (or
# doas) lets through: without asking, by the agent's key, or with a password that the configuration sets.
c: let
  users = builtins.attrValues (c.users.users or {});
  root = c.users.users.root or {};
  security = c.security or {};
  openssh = c.services.openssh or {};
  on = module: (security.${module} or {}).enable or false;
  any = builtins.any (found: found);

  # "!" and "*" before a hash, or alone, let nobody in.
  hash = user: name: let
    value = user.${name} or null;
  in
    value != null && builtins.match "[!*].*" value == null;
  given = user: name: user.${name} or null != null;
  hasPassword = user:
    any (map (hash user) ["hashedPassword" "initialHashedPassword"])
    || any (map (given user) ["password" "initialPassword" "hashedPasswordFile"]);
  hasKey = user: let
    keys = user.openssh.authorizedKeys or {};
  in
    (openssh.enable or false) && (keys.keys or [] ++ keys.keyFiles or []) != [];

  rootMayLogIn = builtins.elem (openssh.settings.PermitRootLogin or "prohibit-password") [
    "yes"
    true
    "prohibit-password"
    "without-password"
  ];
  tools = builtins.filter on ["sudo" "sudo-rs" "doas"];
  agentKey = (security.pam.sshAgentAuth or security.pam.rssh or {}).enable or false;
  unasked = tool: !((security.${tool} or {}).wheelNeedsPassword or true) || agentKey;
  # Rules of the configuration's own; one that lets everything be run without asking is enough.
  free = command: command.command or command == "ALL" && builtins.elem "NOPASSWD" (command.options or []);
  ruled = user: rule:
    (builtins.elem (user.name or "") (rule.users or [])
      || builtins.any (group: builtins.elem group (rule.groups or [])) (user.extraGroups or []))
    && any (map free (rule.commands or []));
  rules = (security.sudo or {}).extraRules or [];
  inWheel = user:
    builtins.elem "wheel" (user.extraGroups or [])
    || builtins.elem (user.name or "") (c.users.groups.wheel.members or []);
  wheel = user:
    inWheel user
    && tools != []
    && (hasPassword user || (hasKey user && any (map unasked tools)));
  ways =
    [
      (hasPassword root)
      (rootMayLogIn && hasKey root)
      (c.services.getty.autologinUser or null == "root")
      # there the system outside gives it
      (c.wsl.enable or false)
      (c.boot.isContainer or false)
    ]
    ++ map wheel users
    ++ map (user: hasKey user && on "sudo" && builtins.any (ruled user) rules) users;
in
  if users == []
  then null
  else any ways
