"""Benchmarks: ``python -m bench``.  Speed is judged by ratios within one run."""
