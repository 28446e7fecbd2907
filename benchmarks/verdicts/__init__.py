"""Every published formula of theory/ against its exact law: `python -m benchmarks.verdicts`."""
