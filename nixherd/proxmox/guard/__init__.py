"""Which requests may be sent to the hypervisor."""
