"""Recording: programs run once and leave a graph of operations, which is compiled and replayed. Internal."""
