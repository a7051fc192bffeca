"""What a pattern excludes, and what not."""

import pytest

from pipeline.io.exclusion import is_excluded

# pattern → paths that it fits, paths that it does not; folders end with a slash
CASES = {
    "lost+found": (
        ["lost+found/", "a/lost+found/", "lost+found"],
        ["lost+found2/", "lost+foun/", "lostfound/"],
    ),
    "lost+found/": (["lost+found/", "a/lost+found/"], ["lost+found"]),
    "lost+found/*": (["lost+found/a.jpg", "lost+found/sub/"], ["lost+found/", "a/lost+found/b.jpg", "a.jpg"]),
    "*.tmp/**": (["x.tmp/", "x.tmp/a.jpg", "x.tmp/y/z.jpg"], ["x.tmp", "a/x.tmp/", "x.tmpx/a.jpg"]),
    "**/*.tmp/**": (["x.tmp/", "a/x.tmp/", "a/b/x.tmp/y/z.jpg"], ["a/", "x.jpg", "a/x.tmp"]),
    "*_small.jpg": (["a_small.jpg", "x/y/a_small.jpg"], ["a_small.jpg.png", "a.jpg", "a_small.JPG"]),
    "/a.jpg": (["a.jpg"], ["x/a.jpg", "xa.jpg"]),
    "a/**/b.jpg": (["a/b.jpg", "a/x/b.jpg", "a/x/y/b.jpg"], ["b.jpg", "a/", "a/xb.jpg", "c/a/b.jpg"]),
    "a/*/b.jpg": (["a/x/b.jpg"], ["a/b.jpg", "a/x/y/b.jpg"]),
    "img_[0-4]?.jpg": (["img_07.jpg", "d/img_4x.jpg"], ["img_5x.jpg", "img_0.jpg"]),
    "[!a]*": (["b.jpg", "a/b/"], ["a.jpg", "b/a.jpg"]),
    "**": (["a/", "a.jpg", "x/y.jpg"], []),
    "line\n*": (["line\nbreak.jpg"], ["line.jpg"]),
    "a+(b).jpg": (["a+(b).jpg"], ["aab.jpg"]),
    "/": ([], ["a/", "a.jpg"]),
}


@pytest.mark.parametrize("pattern", CASES)
def test_a_pattern_fits_what_it_says(pattern: str) -> None:
    fits, others = CASES[pattern]
    assert [path for path in fits if not is_excluded([pattern], path)] == []
    assert [path for path in others if is_excluded([pattern], path)] == []


def test_one_fitting_pattern_of_several_is_enough_and_none_excludes_nothing() -> None:
    assert is_excluded(["x", "*.jpg"], "a.jpg")
    assert not is_excluded([], "a.jpg")
