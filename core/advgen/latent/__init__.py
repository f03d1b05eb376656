"""Where a generator's samples lie: single ones by seed, what is between two of them, and the latent of a given one."""
