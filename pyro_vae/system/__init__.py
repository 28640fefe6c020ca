"""The machine: devices, random generators, memory, files, locks, signals, threads, warnings. Internal."""
