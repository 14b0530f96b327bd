# For NixOS: secrets below /run/secrets, decrypted with the host's key at activation, if the machine has sops.
{
  config,
  lib,
  ...
}: let
  cfg = config.sops;
  secrets = lib.attrValues cfg.secrets;
  inherit (lib) escapeShellArg;
  options = import ./options.nix {
    inherit lib config;
    secretsDir = "/run/secrets";
  };
  # A host without an RSA key and without another key file decrypts with its Ed25519 host key.
  hostKeys = map (k: k.path) (lib.filter (k: k.type == "ed25519") config.services.openssh.hostKeys);
  decrypt = secret: let
    target = "/run/secrets.d/new/${secret.name}";
    extract = lib.optionalString (lib.elem secret.format ["yaml" "json"] && secret.key != "") "--extract ${escapeShellArg (lib.concatMapStrings (k: "[${builtins.toJSON k}]") (lib.splitString "/" secret.key))}";
  in ''
    (umask 026 && mkdir -p "$(dirname ${escapeShellArg target})")
    sops decrypt --input-type ${secret.format} ${lib.optionalString (extract == "") "--output-type ${secret.format}"} ${extract} --output ${escapeShellArg target} ${secret.sopsFile} || { echo "sops: cannot decrypt ${secret.name}" >&2; failed=1; }
    chown ${toString secret.owner}:${toString secret.group} ${escapeShellArg target} && chmod ${secret.mode} ${escapeShellArg target}
  '';
in {
  _known = [(lib.knownOptions "sops-nix")];
  options.sops = options;
  config = lib.mkMerge [
    {sops.age.sshKeyPaths = lib.mkDefault (lib.optionals config.services.openssh.enable hostKeys);}
    (lib.mkIf (secrets != []) {
      assertions = [
        {
          assertion = cfg.age.keyFile != null || cfg.age.sshKeyPaths != [] || cfg.gnupg.home != null;
          message = "No key source configured for sops. Either set services.openssh.enable or set sops.age.keyFile or sops.gnupg.home";
        }
      ];
      system.activationScripts.setupSecrets = {
        deps = ["users" "etc"];
        text = ''
          sops_secrets() (
            set -u; umask 077; failed=0
            # users of a secret can pass this directory, but not list it
            (umask 026 && mkdir -p /run/secrets.d/new) && chmod 0751 /run/secrets.d
            ${lib.optionalString (cfg.age.keyFile != null) "export SOPS_AGE_KEY_FILE=${escapeShellArg cfg.age.keyFile}"}
            ${lib.optionalString (cfg.age.sshKeyPaths != []) ''
            # Recipients are converted host keys; sops itself does not accept SSH keys for those.
            export SOPS_AGE_KEY_FILE=/run/secrets.d/identity HOME=/run/secrets.d
            trap 'rm -f /run/secrets.d/identity' EXIT
            python3 ${./ssh_to_age.py} ${escapeShellArg (toString (lib.head cfg.age.sshKeyPaths))} >/run/secrets.d/identity
          ''}
            ${lib.concatMapStrings decrypt secrets}
            [ "$failed" = 0 ] || exit 1
            rm -rf /run/secrets.d/1 && mv /run/secrets.d/new /run/secrets.d/1 && ln -sfn /run/secrets.d/1 /run/secrets
          )
          sops_secrets
        '';
      };
    })
  ];
}
