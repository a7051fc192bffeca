"""Deletes what a run left, so that another may begin in its output."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline.io import layout, store
from pipeline.ledger.plan import load_units, read_plan

DELETERS = 32


def discard(output: str) -> None:
    """Delete what a run left in an output: what it delivered, its records, report and ledger, but for run.json.

    Other files beside its pictures and shards stay. The plan, which says which are its own, goes last.
    """
    with ThreadPoolExecutor(DELETERS) as pool:

        def delete(paths: Iterable[str]) -> None:
            list(pool.map(store.delete, (store.join(output, path) for path in paths)))

        plan = read_plan(output).shards
        for planned in plan:
            for unit in load_units(output, planned.shard):
                delete(path for path in unit.paths if not path.endswith("/"))
                for folder in (unit.faces_folder, unit.tiles_folder):
                    delete(f"{folder}/{path}" for path in _paths_below(output, folder))
        delete(layout.report_path(path) for path in _paths_below(output, layout.REPORT))
        for folder in (layout.VERDICTS, layout.MADE_TILES):
            delete(f"{folder}/{path}" for path in _paths_below(output, folder))
        delete(
            (layout.RETRIES, layout.TRACKING, layout.REPORT_FILES, layout.REVIEW_PAGE, layout.SAVED_VERDICTS)
        )
        delete(layout.plan_path(p.shard.name) for p in plan)
        delete([layout.PLAN])


def _paths_below(output: str, folder: str) -> list[str]:
    """The paths of the files in a folder of the output, relative to that folder."""
    uri = store.join(output, folder)
    return [e.path for e in store.list_files(uri)] if store.exists(uri) else []
