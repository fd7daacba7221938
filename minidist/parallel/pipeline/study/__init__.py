"""Study a schedule without running it: simulate its times, draw them, report them as text."""
