"""One person as the front hosts them: a folder here, a process of Triton's, and who asks at the moment."""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import LikenessError


@dataclass(eq=False)
class HostedModel:
    """One target model. All fields belong to the front's lock."""

    target: str
    version: str
    is_ready: bool = False  # may be invoked
    failure: LikenessError | None = None  # of its load
    in_flight: int = 0
    used: int = 0  # by the front's count of requests
    folder: Path = field(default=Path(), repr=False)

    @property
    def id(self) -> str:
        """SageMaker's own names are hashes too."""
        return hashlib.sha256(f"{self.target}\n{self.version}".encode()).hexdigest()[:32]

    def remove(self) -> None:
        """Delete its files; nothing where there are none."""
        if self.folder != Path():
            shutil.rmtree(self.folder.parent, ignore_errors=True)
