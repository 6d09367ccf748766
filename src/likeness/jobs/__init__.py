"""The queue of training jobs: what is ordered, claimed, done and reported, as rows of a database. `worker` does it."""
