# The new system needs a boot: switch-to-configuration ends with 100.
{
  system.systemBuilderCommands = "rm init-interface-version; echo another >init-interface-version";
}
