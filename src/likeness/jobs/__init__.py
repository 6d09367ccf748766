"""The training service: a durable queue of jobs, workers that train many people in one loop, notifications."""
