"""Any Pyro programs: their arguments, data of several tensors, and runs on a few rows. Internal."""
