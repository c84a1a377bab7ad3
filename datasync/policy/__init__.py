"""The policy: read strictly, compiled once; it decides what each place holds and what each worker sees."""
