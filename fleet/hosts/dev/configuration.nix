# dev: a virtual machine for development, created and managed by nixherd (VMID 110).
{
  imports = [
    ./disko.nix
    ./hardware-configuration.nix
  ];

  # OVMF starts systemd-boot, the default, from the EFI system partition of disko.nix.
  boot.loader.systemd-boot.configurationLimit = 10;

  # It reports the machine's addresses to the hypervisor.
  services.qemuGuest.enable = true;

  # Decrypted at activation with the machine's own host key; secrets/.sops.yaml lists the other recipients.
  sops.defaultSopsFile = ../../secrets/dev.yaml;
  sops.secrets.api_token = {};
  sops.secrets."wifi/password".sopsFile = ../../secrets/common.yaml;
  sops.secrets.common_env = {
    sopsFile = ../../secrets/common.env;
    format = "dotenv";
  };

  system.stateVersion = "25.11";
}
