"""Keep pytest from importing scripts: --doctest-modules would collect every .py file here."""

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_script = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_script else None
