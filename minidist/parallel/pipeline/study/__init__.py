"""Study a schedule without running it: simulate, draw, report."""
