"""Handover: moving an attachment, and the state behind it, from a source edge to a target edge."""
