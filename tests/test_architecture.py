"""docs/architecture.md shows the floors as import-linter holds them and the folders describe themselves."""

from tools import floor_table


def test_the_documented_floors_are_those_of_the_contract():
    text = floor_table.DOCUMENT.read_text()
    assert text.count(floor_table.BEGIN) == text.count(floor_table.END) == 1
    assert text == floor_table.with_table(text), "run `make docs`"


def test_the_table_has_every_folder_of_the_package():
    rooms = {f"pipeline/{file.parent.name}" for file in floor_table.ROOT.glob("pipeline/*/__init__.py")}
    assert {room for floor in floor_table.floors() for room in floor} == rooms | {"jobs"}
