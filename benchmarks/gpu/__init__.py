"""The parts of ``bench_gpu``. They need PyTorch, NumPy, Zarr and numcodecs, and nothing else."""
