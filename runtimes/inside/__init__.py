"""What runs inside a sandbox as its first process.

The modules here are read by whatever Python the sandbox has (3.9 or later): they import the
standard library and each other, and nothing else.
"""
