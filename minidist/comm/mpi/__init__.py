"""Real ranks: the communicator over mpi4py."""
