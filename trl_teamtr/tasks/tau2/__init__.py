"""τ²-bench's airline, retail and telecom domains, from the package inspect-evals (extra `tau`), as environments."""
