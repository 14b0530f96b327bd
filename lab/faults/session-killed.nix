# The activation ends the sessions of the deploying user.
{
  system.activationScripts.fault = "pkill -KILL -f '^sshd(-session)?: ' || true";
}
