"""How many workers compute it: Dask graphs, clusters, progress and the Click commands."""
