"""What every function of evidence runs on: blocks of datapoints, progress, resuming, processes. Internal."""
