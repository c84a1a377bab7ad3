"""The worked example: real recordings, devices that roam and visit, edges of two operators, a cloud; all checked."""
