"""Views: what one worker may read of one collection for one purpose, planned once and read batch by batch."""
