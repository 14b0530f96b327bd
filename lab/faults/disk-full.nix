# The activation fills the root file system to the last block.
{
  system.activationScripts.fault = "mkdir -p /var/fault; i=0; for size in 16G 1G 64M 1M 64K 4K; do while fallocate -l $size /var/fault/$i; do i=$((i+1)); done; done 2>/dev/null";
}
