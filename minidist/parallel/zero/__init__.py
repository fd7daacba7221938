"""ZeRO: optimiser states, gradients and parameters in shards, one a rank."""
