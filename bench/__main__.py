"""``python -m bench`` is `trunkline bench`."""

from __future__ import annotations

from trunkline.cli.bench import bench

if __name__ == "__main__":
    bench(prog_name="python -m bench")
