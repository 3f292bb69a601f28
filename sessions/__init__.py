"""The life of sessions: states, placement, profiles, records, and the manager that owns them."""
