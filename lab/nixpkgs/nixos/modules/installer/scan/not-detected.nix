# Hardware that nixos-generate-config does not detect.
{lib, ...}: {
  hardware.enableRedistributableFirmware = lib.mkDefault true;
}
