"""What the package needs of the machine: devices, random generators, memory, files, signals, threads. Internal."""
