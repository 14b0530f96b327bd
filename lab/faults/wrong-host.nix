# The system has a different hostname than in the fleet.
{
  system.activationScripts.fault = {
    deps = ["hostname"];
    text = "hostname somebody-else";
  };
}
