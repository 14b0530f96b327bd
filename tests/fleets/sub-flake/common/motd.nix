{environment.etc.motd.text = "from beside the flake";}
