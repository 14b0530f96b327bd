# dev: a virtual machine for development, made and kept by nixherd (VMID 110).
{
  imports = [
    ./disko.nix
    ./hardware-configuration.nix
  ];

  # OVMF starts systemd-boot, the default, from the EFI system partition that disko.nix lays out.
  boot.loader.systemd-boot.configurationLimit = 10;

  # The hypervisor learns the machine's addresses from it.
  services.qemuGuest.enable = true;

  # Decrypted at activation with the machine's own host key; who else may is said in secrets/.sops.yaml.
  sops.defaultSopsFile = ../../secrets/dev.yaml;
  sops.secrets.api_token = {};
  sops.secrets."wifi/password".sopsFile = ../../secrets/common.yaml;
  sops.secrets.common_env = {
    sopsFile = ../../secrets/common.env;
    format = "dotenv";
  };

  system.stateVersion = "25.11";
}
