"""One update of each player, in parts: what a step is made of. Import what is needed from where it lives."""
