"""PlanBench's task of writing a plan: rows, the domains, and a simulator that checks plans."""
