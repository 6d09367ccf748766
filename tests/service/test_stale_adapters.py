"""What one process forgets leaves the memory of the others."""

from pathlib import Path

from fixtures.published import publish_person
from likeness.config import Settings
from likeness.service import build
from likeness.storage.library import engine_key
from likeness.types import ImageRequest, blend_of


def test_a_forget_elsewhere_empties_this_engine(contrasted_base_folder: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", base=str(contrasted_base_folder), slots=4, max_batch=4)
    server, elsewhere = build(settings), build(settings)
    try:
        assert server.drop_stale_adapters() == 0  # no engine yet
        for seed, name in enumerate(("anna", "bert"), 1):
            publish_person(server, name, seed)
            server.generate([ImageRequest("portrait", adapters=blend_of(name), steps=1)])
        keys = {name: engine_key(server.catalog.find_adapter("local", name)) for name in ("anna", "bert")}
        assert server.engine.held() == frozenset(keys.values())
        elsewhere.forget("anna")
        assert server.engine.held() == frozenset(keys.values())
        assert server.drop_stale_adapters() == 1
        assert server.engine.held() == {keys["bert"]}
        assert server.drop_stale_adapters() == 0
    finally:
        server.close()
        elsewhere.close()
