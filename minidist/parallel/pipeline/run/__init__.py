"""Run a schedule on simulated or MPI ranks: the executor (runtime), and what it relies on."""
