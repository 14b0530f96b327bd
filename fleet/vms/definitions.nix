# The virtual machines: the hypervisor, the VMs, and which of them nixherd may change.
#
# `managed` VMs are created and changed by nixherd; `imported` ones are documented here and never changed.
# `readonly = true` protects either: nixherd checks the flag here before every change, and the only way around it is to
# edit this file.
{
  # Marks the VMs that this fleet created.
  fleet = "homelab";

  proxmox = {
    host = "192.168.1.12";
    node = "prom";
    user = "root";
    defaultStorage = "nvmeprom";
  };

  imported = {
    doc1 = {
      vmid = 104;
      hostname = "proxmox-vm";
      sshAlias = "doc1";
      status = "running";
      specs = {
        cores = 8;
        memory = 32768;
        disk = "250G";
        storage = "nvmeprom";
        mtu = 1400;
      };
      purpose = "Main services";
      services = [
        "nixcache.ablz.au (Nix cache server)"
        "GitHub Actions runner proxmox-bastion"
        "Docker services (more than 20)"
        "rolling flake updates"
      ];
      readonly = true;
    };

    igp = {
      vmid = 109;
      hostname = "igpu";
      sshAlias = "igp";
      status = "running";
      specs = {
        cores = 6;
        memory = 16384;
        disk = "passthrough";
        gpu = "AMD iGPU, passed through";
      };
      purpose = "Media, with the iGPU";
      services = ["media transcoding"];
      notes = "The Proxmox host needs vendor-reset (DKMS), or the iGPU does not survive a reboot of this VM.";
      readonly = true;
    };
  };

  managed = {
    dev = {
      vmid = 110;
      cores = 4;
      memory = 8192;
      disk = "64G";
      storage = "nvmeprom";
      nixosConfig = "dev";
      purpose = "Development and tests";
      services = ["ssh"];
      # Provisioned; deployments continue, but it is never wiped. Remove the line to let nixherd change the VM.
      readonly = true;
    };
  };

  # The template of new VMs: a cloud image with the QEMU guest agent, OVMF and its disk on scsi0.
  template = {
    vmid = 9002;
    name = "debian-13-cloud";
    description = "Debian 13 cloud image with cloud-init and the QEMU guest agent";
    specs = {
      cores = 2;
      memory = 2048;
      bios = "ovmf";
      machine = "q35";
      disk = "scsi0";
    };
  };

  vmidRanges = {
    production = {
      start = 100;
      end = 199;
      description = "Virtual machines in service";
    };
    containers = {
      start = 200;
      end = 299;
      description = "LXC containers";
    };
    templates = {
      start = 9000;
      end = 9999;
      description = "Templates to clone from";
    };
  };
}
