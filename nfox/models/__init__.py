"""From a name to a target in memory: dtype, quantisation, devices, adapters."""
