"""Sync: capturing rows into segments, sending what somebody lacks, receiving what is new."""
