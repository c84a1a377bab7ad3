"""The command line: one module for each command group, imported only when its command is called.

A group's module has ``configure(parser)``, which declares its arguments and sets ``run``; that takes the parsed
arguments and returns the exit code: 0 done, 1 the answer is no or something failed, 2 wrong usage.
"""
