"""What is done with anybody's Pyro programs: which arguments they take, and runs on a few rows. Internal."""
