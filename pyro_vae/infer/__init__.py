"""From programs to steps."""
