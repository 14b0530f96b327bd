# What deploy-rs needs to know of the light hosts: each system, wrapped as its own library would wrap it.
{
  self,
  pkgs,
}: {
  nodes =
    builtins.mapAttrs (name: address: {
      hostname = address;
      sshUser = "root";
      sshOpts = builtins.fromJSON (builtins.readFile ./ssh-options.json);
      fastConnection = true;
      profiles.system = {
        user = "root";
        path = pkgs.runCommand "activatable-${name}" {} ''
          mkdir $out
          ln -s ${self.nixosConfigurations.${name}.config.system.build.toplevel}/* $out/
          printf '#!/bin/sh\ncd /tmp\nexec "$PROFILE/bin/switch-to-configuration" switch\n' >$out/deploy-rs-activate
          chmod +x $out/deploy-rs-activate
          ln -s ${./activate} $out/activate-rs
        '';
      };
    })
    (builtins.fromJSON (builtins.readFile ./addresses.json));
}
