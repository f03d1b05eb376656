"""Sound in and out: which files there are, their clips decoded once, segments of these, and sound files written."""
