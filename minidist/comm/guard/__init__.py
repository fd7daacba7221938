"""No rank is left waiting: fingerprints of collectives, deadlines, and aborting together."""
