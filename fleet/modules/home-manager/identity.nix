# The secrets of a home are decrypted with its user's identity: the private SSH key that the machine decrypts for the user
# (homelab.ssh.identitySecretName), elsewhere the key that the user has installed.
{
  config,
  lib,
  options,
  specialArgs,
  ...
}: let
  machine = specialArgs.osConfig or null;
  name = machine.homelab.ssh.identitySecretName or null;
  identity =
    if machine != null && name != null && machine.homelab.ssh.enable
    then machine.sops.secrets.${name}.path
    else "${config.home.homeDirectory}/.ssh/id_ed25519";
in {
  config = lib.optionalAttrs (options ? sops) {
    sops.age.sshKeyPaths = lib.mkIf (config.sops.secrets != {}) (lib.mkDefault [identity]);
  };
}
