"""One file per BI tool. Nothing vendor-specific stands anywhere else."""
