"""The review page by keys alone, and in small and enlarged windows, in a real browser."""

import pytest
import review_pages
from browser import Browser
from reviewing import counts, current, names, saved_file, state, taken
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.usefixtures("at_peace")

FOCUSABLE = "button:not(:disabled), input, select, a[href], [tabindex='0']"
SEEN = """
const e = document.activeElement, s = getComputedStyle(e), t = getComputedStyle(e.closest('.tile') ?? e);
const name = e.ariaLabel || e.labels?.[0]?.textContent || e.textContent;
return [e === document.body, (s.outlineStyle !== 'none' || t.outlineStyle !== 'none'), name.trim() !== '',
  [...document.querySelectorAll(arguments[0])].indexOf(e)]
"""


def tabbed(browser: Browser, selector: str) -> set[int]:
    """Which elements of the selector Tab reaches until it leaves the page; each shows its focus and has a name."""
    reached: set[int] = set()
    while True:
        outside, visible, named, number = browser.run(SEEN, selector)
        if (outside and reached) or number in reached:
            return reached
        if not outside:
            assert visible and named, number
            reached.add(number)
        browser.press(Keys.TAB)


def test_tab_reaches_everything_and_shows_where_it_is(browser, tmp_path):
    page = review_pages.write_output(tmp_path, review_pages.few_faces()[:2])
    browser.open(page.as_uri())
    wanted = {i for i, one in enumerate(browser.all(FOCUSABLE)) if one.is_displayed()}
    assert len(wanted) > 20
    assert tabbed(browser, FOCUSABLE) == wanted
    browser.open(page.as_uri())
    browser.press("d")
    inside = "#redo :is(button, input, select)"
    assert tabbed(browser, inside) == set(range(len(browser.all(inside))))


def test_a_whole_review_goes_by_keys_alone(browser, page):
    browser.open(page.as_uri())
    browser.press("?")
    assert browser.one("#help").is_displayed() and "next face" in browser.one("#help").text
    browser.press(Keys.ESCAPE)
    assert not browser.one("#help").is_displayed()
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_UP, "j", "k")
    assert browser.run("return document.activeElement === document.querySelector('.face[aria-current]')")
    browser.press(Keys.TAB, Keys.ARROW_LEFT)
    assert browser.one(".slider").get_attribute("value") == "45"
    # Tab from the slider: accept, reject, redo
    browser.press(Keys.TAB, Keys.TAB, Keys.SPACE)
    assert state(browser, 7) == "reject"
    browser.press("/", "page 00", Keys.ENTER)
    assert names(browser) == [1, 0]
    assert browser.run("return document.activeElement === document.querySelector('.face[aria-current]')")
    browser.press("d")
    browser.press(*[Keys.TAB] * 4, "90", Keys.ENTER)
    assert "redo with N 90" in current(browser).text
    browser.press("/", Keys.ESCAPE, "A")
    assert counts(browser) == {"all": 8, "open": 4, "accept": 2, "reject": 1, "redo": 1}
    browser.press("s")
    browser.press("Ada", Keys.ENTER)
    browser.wait(lambda: browser.one("#saved").is_displayed())
    assert {one["who"] for one in saved_file(taken(browser)).values()} == {"Ada"}


# of each element: how far it reaches beyond the window's sides, and whether a click would meet it
PLACED = """
return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility() && !e.disabled).map(e => {
  e.scrollIntoView({block: 'center'});
  const b = e.getBoundingClientRect();
  const hit = document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2);
  return [e.outerHTML.slice(0, 80), b.left < -0.5 || b.right > innerWidth + 0.5, e === hit || e.contains(hit)];
})
"""


@pytest.mark.parametrize(("width", "height", "scale"), [(700, 500, 2), (1400, 1000, 1), (400, 700, 1)])
def test_nothing_is_cut_off_or_hidden(browser, page, width, height, scale):
    with browser.sized(width, height, scale):
        browser.open(page.as_uri())
        for key, inside in [("", "body"), ("d", "#redo"), ("?", "#help")]:
            browser.press(*key)
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), inside
            placed = browser.run(PLACED, f"{inside} :is(button, input, select, .face, .tile, figure, h2, dd)")
            assert placed
            assert [text for text, beyond, _ in placed if beyond] == []
            controls = browser.run(PLACED, f"{inside} :is(button, input, select)")
            assert [text for text, _, met in controls if not met] == []
            assert browser.run(
                "return document.querySelector(arguments[0]).scrollWidth <= innerWidth", inside
            )
            browser.press(Keys.ESCAPE)
