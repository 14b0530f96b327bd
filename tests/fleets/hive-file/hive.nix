{
  meta.nixpkgs = <nixpkgs>;
  web = {
    imports = [./hardware-configuration.nix];
    deployment.targetHost = "web.example.org";
  };
}
