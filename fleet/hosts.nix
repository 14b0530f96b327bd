# Every machine of the fleet, once. The inventory, the pinned known_hosts, SSH aliases, deploy targets and the
# recipients of secrets all derive from this file.
let
  # The people who may log in on every machine.
  masterKeys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVZkgrGCfFDxP3d/gwqeFV+tHOQhEfj6q4ZZ+VfJkNc abl030@epimetheus"
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAXfRSazaOCoVJ06QoaiWo7BAR9e62ImBcIzwGPbM0hK abl030@framework"
  ];
in {
  # Desktop.
  epimetheus = {
    hostname = "epimetheus";
    sshAlias = "epi";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBLttgCC207xe2/VdjJgUJmLQMgJ3lvL9AeIfsob+Gyo root@epimetheus";
    authorizedKeys = masterKeys;
    sshKeyName = "ssh_key_abl030";
    configurationFile = ./hosts/epimetheus/configuration.nix;
    homeFile = ./hosts/epimetheus/home.nix;
  };

  # Laptop, a Framework 13.
  framework = {
    hostname = "framework";
    sshAlias = "fra";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICBa9R6wqlsINQoM68otdxLMpHDdxl/F9tWypzsEud2Q root@framework";
    authorizedKeys = masterKeys;
    sshKeyName = "ssh_key_abl030";
    configurationFile = ./hosts/framework/configuration.nix;
    homeFile = ./hosts/framework/home.nix;
  };

  # Another operating system with Home Manager: no configurationFile.
  caddy = {
    hostname = "caddy";
    sshAlias = "cad";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPTOR5qnJNY/q7GrwdwqQP6PDpAYtLCiak50rGxTyM2G root@caddy";
    authorizedKeys = masterKeys;
    homeFile = ./hosts/caddy/home.nix;
  };

  # NixOS-WSL.
  wsl = {
    hostname = "wsl";
    sshAlias = "wsl";
    user = "nixos";
    homeDirectory = "/home/nixos";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMdfPpJtDyaNTYbJwTTqB/K6bQAe3OqqjS5qVowx31CK root@wsl";
    authorizedKeys = masterKeys;
    sudoPasswordless = true;
    configurationFile = ./hosts/wsl/configuration.nix;
    homeFile = ./hosts/wsl/home.nix;
  };

  # VM 104: cache server, CI runner and the Docker services. Only documented in vms/definitions.nix.
  proxmox-vm = {
    hostname = "proxmox-vm";
    sshAlias = "doc1";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPeoaF0zyWW+0zF/kUUhzsJ3Dy9oP8Q4qpBuZb2H5SNV root@proxmox-vm";
    authorizedKeys = masterKeys;
    configurationFile = ./hosts/proxmox-vm/configuration.nix;
    homeFile = ./hosts/proxmox-vm/home.nix;
  };

  # VM 109: the AMD iGPU passed through. Only documented in vms/definitions.nix.
  igpu = {
    hostname = "igpu";
    sshAlias = "igp";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBOb4LKnG3VQbrKIE4Rs2+3CCdf6SWbnBWghs3grg7iZ root@igpu";
    authorizedKeys = masterKeys;
    configurationFile = ./hosts/igpu/configuration.nix;
    homeFile = ./hosts/igpu/home.nix;
  };

  # VM 110: created and managed by nixherd.
  dev = {
    hostname = "dev";
    sshAlias = "dev";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEBq+BA/zth6xSQHU1YjSfZcjCv7cYGpMV61XE4512+a root@dev";
    authorizedKeys = masterKeys;
    sudoPasswordless = true;
    configurationFile = ./hosts/dev/configuration.nix;
    homeFile = ./hosts/dev/home.nix;
  };
}
