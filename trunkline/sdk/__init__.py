"""The Python SDK: sessions over HTTP, streams over trunk/1.  Imports the relay and nothing else."""
