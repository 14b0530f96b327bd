# A check of the new system's own says no before anything is switched: switch-to-configuration ends with 1.
{
  system.preSwitchChecks.fault = "echo 'the fault: a check that says no'; exit 1";
}
