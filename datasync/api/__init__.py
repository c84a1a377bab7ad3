"""The HTTP API of a node: health, metrics, views, explanations, administration and a web page."""
