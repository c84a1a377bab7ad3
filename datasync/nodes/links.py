"""The links of edges and clouds; a device's are named by the edges that they lead to."""

BACKBONE = "backbone"
"""The cloud's broker, on which edges and cloud meet."""

DEVICES = "devices"
"""An edge's own broker, for its devices."""
