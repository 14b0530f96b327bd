# A snippet of the activation script fails: switch-to-configuration ends with 2.
{
  system.activationScripts.fault = "echo 'the fault: a snippet that fails'; false";
}
