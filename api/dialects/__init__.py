"""Translations between trunk/1 and the protocols of other products' clients."""
