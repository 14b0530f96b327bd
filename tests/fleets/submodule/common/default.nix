{environment.etc.motd.text = "from a submodule";}
