"""Identities and trust, keys at rest and on the way, by standard parts."""
