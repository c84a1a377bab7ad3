"""The words of datasync as values: tiers, names, clocks, range sets, errors and limits. Standard library only."""
