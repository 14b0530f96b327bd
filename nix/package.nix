{
  lib,
  buildPython,
  setuptools,
  # what it imports: the dependencies of pyproject.toml
  click,
  cryptography,
  gevent,
  google-re2,
  jinja2,
  paramiko,
  pathspec,
  prometheus-client,
  proxmoxer,
  pyinfra,
  pynacl,
  pyyaml,
  requests,
  rich,
  tree-sitter,
  tree-sitter-grammars,
  typing-extensions,
  urllib3,
  # what it runs
  git,
  openssh,
  sops,
}: let
  inherit (lib.importTOML ../pyproject.toml) project;
in
  buildPython {
    pname = project.name;
    inherit (project) version;
    pyproject = true;

    # nixherd/ has links to the rest.
    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../nixherd
        ../operations
        ../facts
        ../deploys
        ../group_data
        ../config.py
        ../inventory.py
        ../nodes.py
        ../fleet/modules
        ../pyproject.toml
        ../README.md
        ../LICENSE
      ];
    };

    build-system = [setuptools];

    dependencies = [
      click
      cryptography
      gevent
      google-re2
      jinja2
      paramiko
      pathspec
      prometheus-client
      proxmoxer
      pyinfra
      pynacl
      pyyaml
      requests
      rich
      tree-sitter
      tree-sitter-grammars.tree-sitter-nix
      typing-extensions
      urllib3
    ];

    # Behind the user's own; Nix is the one that is there.
    makeWrapperArgs = ["--suffix" "PATH" ":" (lib.makeBinPath [git openssh sops])];

    pythonImportsCheck = [
      "nixherd.cli.main"
      "nixherd.deploys.machines"
      "nixherd.facts.nixos"
      "nixherd.operations.proxmox"
    ];

    meta = {
      inherit (project) description;
      license = lib.licenses.mit;
      mainProgram = "nixherd";
      platforms = lib.platforms.linux;
    };
  }
