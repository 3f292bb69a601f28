"""The edge: what clients connect to."""
