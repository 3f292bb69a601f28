"""The endpoints, one blueprint per subject."""
