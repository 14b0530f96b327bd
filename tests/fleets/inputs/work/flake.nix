{
  description = "A stand-in for a private repository, which is locked and then out of reach";

  outputs = _: {nixosModules.office = {networking.hostName = "office";};};
}
