"""Data before training: sources in memory or on the device, archives, named sets, lists of files, and what is in them."""
