{hostName, ...}: {networking.hostName = hostName;}
