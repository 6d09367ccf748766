"""A serving cluster on Ray Serve: one ingress with the HTTP application, and replicas with an engine each.

    client -> Serve's proxy -> ingress: keys, limits, catalog, routing -> replicas: base, bank, batches

`application` composes it, `router` decides which replica answers, `remote_engine` is all replicas as one engine.
"""
