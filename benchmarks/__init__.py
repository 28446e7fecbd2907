"""What is measured: the same work here and elsewhere, in one run."""
