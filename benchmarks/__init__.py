"""What tilenet costs beside bare PyTorch, beside Dask's own recipe, and per block."""
