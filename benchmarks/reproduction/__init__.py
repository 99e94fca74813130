"""What `benchmarks/reproduce.py` runs: teams on LINK under the paper's baselines and ablations, cell by cell."""
