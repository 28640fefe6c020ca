"""What estimators return: log-weights summed up, their diagnostics and error bars."""
