# Hardware that nixos-generate-config did not look for.
{lib, ...}: {
  hardware.enableRedistributableFirmware = lib.mkDefault true;
}
