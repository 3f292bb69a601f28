"""trunk/1, without any I/O: frames, windows, replay ring, state tables, the connection.

Nothing here waits, looks at a clock or draws a random number; time comes in as an argument.  The
protocol is specified in docs/spec/trunk-1.md; "§" in this package means a section of it.
"""
