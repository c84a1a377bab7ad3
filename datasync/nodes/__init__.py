"""Device, edge and cloud: what each does with a message, the shell that runs it, and how it starts."""
