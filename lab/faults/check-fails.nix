# A pre-switch check of the new system fails: switch-to-configuration ends with 1.
{
  system.preSwitchChecks.fault = "echo 'the fault: a check that says no'; exit 1";
}
