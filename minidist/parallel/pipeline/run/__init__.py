"""Run a schedule on ranks, simulated or MPI."""
