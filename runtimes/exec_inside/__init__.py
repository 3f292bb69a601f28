"""Sandboxes that are reached only by running programs in them, through somebody's "exec".

What a container engine and a cluster have in common: each process has a connection of its own for its
bytes, and everything else (signals, files, connections to ports) is done by small programs inside.
"""
