"""Storage of one installation: object store, catalog, home folder."""
