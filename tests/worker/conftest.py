from tests.jobs.conftest import installation, queue

__all__ = ["installation", "queue"]
