{
  hostname,
  user,
  ...
}: {
  imports = [./hardware-configuration.nix];
  networking.hostName = hostname;
  users.users.${user} = {
    isNormalUser = true;
    extraGroups = ["wheel"];
  };
}
