# From the nodes of a hive, which the flake has at `place`, to the same, each with what it says of its deployment beside,
# as `shape`. Of keys the names alone are read.
place:
builtins.mapAttrs (_: node:
  node
  // {
    shape.colmena = let
      deployment = node.config.deployment or {};
    in
      {inherit place;}
      // builtins.intersectAttrs {
        allowLocalDeployment = null;
        buildOnTarget = null;
        privilegeEscalationCommand = null;
        replaceUnknownProfiles = null;
        sshOptions = null;
        tags = null;
        targetHost = null;
        targetPort = null;
        targetUser = null;
      }
      deployment
      // {keys = builtins.attrNames (deployment.keys or {});};
  })
