"""What happened in a run, as events: rooms for the recorder and the viewer."""
