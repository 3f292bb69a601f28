"""Desktops: starting one when it is first looked at, and letting viewers only look.

Nothing is imported here: profiles need `launch` alone, and the command line starts with those.
"""
