"""Where processes run: sandboxes and the runtimes that make them."""
