"""From a budget to a plan: scenarios, optimum, crossover."""
