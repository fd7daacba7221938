"""Pipeline parallelism: a schedule is data; it is validated, simulated, executed and drawn."""
