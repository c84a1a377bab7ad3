"""The worked example: real recordings, devices that roam between two edges, a cloud that learns; all checked."""
