"""Which channels go and how many of each group: rankings, budgets, allocation, plans."""
