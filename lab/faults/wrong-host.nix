# The system calls itself something else than the fleet says.
{
  system.activationScripts.fault = {
    deps = ["hostname"];
    text = "hostname somebody-else";
  };
}
