"""Making the declared template out of a cloud image: the image, the VM made of it, the clone that tries it."""
