# The running system cannot become this one without a boot: switch-to-configuration ends with 100.
{
  system.systemBuilderCommands = "rm init-interface-version; echo another >init-interface-version";
}
