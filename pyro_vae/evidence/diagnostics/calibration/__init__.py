"""Simulation-based calibration: whether q(z | x) is the posterior."""
