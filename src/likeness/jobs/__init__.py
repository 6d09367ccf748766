"""The durable queue: jobs go in, a worker trains many people at once, adapters come out, and nobody is forgotten."""
