"""The review page in a real browser: opened as a file, from its server and from S3, by mouse and by keys."""

import io
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import review_pages
from PIL import Image
from reviewing import counts, current, downloaded, names, said, saved_file, show, state, taken
from s3fs import S3FileSystem
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from pipeline.reporting.review_page import review_document

HOSTILE = "</script><img src=x onerror=alert(1)>'\" & <b>.jpg"


pytestmark = pytest.mark.usefixtures("at_peace")


# ---------------------------------------------------------------------------------------------- looking


def test_a_file_opens_with_the_worst_identity_first_and_says_what_is_left(browser, page):
    browser.open(page.as_uri())
    assert names(browser) == [7, 6, 5, 2, 1, 0, 4]
    assert counts(browser) == {"all": 8, "open": 7, "accept": 1, "reject": 0, "redo": 0}
    assert "9.0° of 30.0° allowed" in browser.one(".face").text
    loaded = "return document.querySelector('.face .before').naturalWidth"
    assert browser.wait(lambda: browser.run(loaded)) == 2 * review_pages.TILE[0]


def test_a_face_shows_what_was_tried_and_why_it_was_left(browser, page):
    browser.open(page.as_uri())
    text = browser.one(".face[data-picture='album/page 01.jpg']").text
    assert "left as it was" in text and "Every treatment turned the identity" in text
    assert "identity 34.0° (bound 30.0°)" in text and "non finite" in text
    assert "invented here" in browser.one(".face[data-picture='album/page 00.jpg']").text
    show(browser, "accept")
    assert "accepted by Ada, 2026-01-02; carried out" in browser.one(".face").text


def test_the_slider_parts_before_and_after_by_mouse_and_by_key(browser, page):
    browser.open(page.as_uri())
    tile, slider = browser.one(".tile"), browser.one(".slider")
    assert (tile.size["width"], tile.size["height"]) == review_pages.TILE
    browser.wait(lambda: browser.run("return document.querySelector('.after').complete"))
    ActionChains(browser.driver).move_to_element_with_offset(slider, -60, 0).click().perform()
    assert int(slider.get_attribute("value")) == 25
    blue, green = colours(tile, (40, 10), (80, 10))
    assert blue[2] > blue[1] and green[1] > green[2]
    ActionChains(browser.driver).drag_and_drop_by_offset(slider, 60, 0).perform()
    assert int(slider.get_attribute("value")) == 75
    blue, also_blue, green = colours(tile, (40, 10), (160, 10), (200, 10))
    assert blue == also_blue and green[1] > green[2]
    browser.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert int(slider.get_attribute("value")) == 65
    browser.press("j", Keys.ARROW_RIGHT)
    values = [int(one.get_attribute("value")) for one in browser.all(".slider")]
    assert values[:3] == [65, 55, 50]


def colours(tile: WebElement, *points: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Pixels of the tile as it is on the screen, (x, y) from its left upper corner."""
    shown = Image.open(io.BytesIO(tile.screenshot_as_png)).convert("RGB")
    return [shown.getpixel(point) for point in points]


BOX = """
const [t, h] = [arguments[0], arguments[0].querySelector('.heat')].map(e => e.getBoundingClientRect());
return [h.x - t.x, h.y - t.y, h.width, h.height];
"""


@pytest.mark.parametrize(("number", "dark", "bright"), [(7, (75, 60), (160, 60)), (6, (80, 55), (80, 140))])
def test_heat_lies_where_the_crop_lies_in_the_picture(browser, page, number, dark, bright):
    browser.open(page.as_uri())
    tile = browser.all(".tile")[7 - number]
    browser.run("arguments[0].scrollIntoView({block: 'center'})", tile)
    browser.wait(lambda: browser.run("return arguments[0].querySelector('.before').complete", tile))
    points = (dark, bright, (200, 60))
    before = colours(tile, *points)
    browser.press("h")
    assert browser.run(BOX, tile) == pytest.approx([72, 52, 96, 96], abs=0.1)
    browser.wait(lambda: browser.run("return arguments[0].querySelector('.heat').complete", tile))
    without, with_much, outside = colours(tile, *points)
    assert without == pytest.approx(before[0], abs=3) and outside == before[2]
    assert with_much[0] > 150 > with_much[1] and with_much != before[1]
    browser.press("h")
    assert colours(tile, *points) == before


def test_orders_and_filters_choose_the_faces(browser, page):
    browser.open(page.as_uri())
    show(browser, "all")
    order = Select(browser.one("#order"))
    expected = {
        "identity": [7, 6, 5, 3, 2, 1, 0, 4],
        "bound": [7, 6, 5, 3, 2, 1, 0, 4],
        "size": [7, 6, 5, 4, 3, 2, 1, 0],
        "gain": [7, 6, 5, 4, 3, 2, 1, 0],
        "spread": [7, 6, 5, 3, 2, 1, 0, 4],
        "reason": [2, 0, 3, 4, 6, 7, 5, 1],
        "archive": [0, 1, 2, 3, 4, 5, 6, 7],
    }
    assert [option.get_attribute("value") for option in order.options] == list(expected)
    for value, faces in expected.items():
        order.select_by_value(value)
        assert names(browser) == faces, value
    Select(browser.one("#outcome")).select_by_value("left")
    assert names(browser) == [2]
    Select(browser.one("#outcome")).select_by_value("restored")
    Select(browser.one("#rung")).select_by_visible_text("the estimator alone")
    assert names(browser) == [5]
    Select(browser.one("#rung")).select_by_visible_text("all")
    browser.click("#invented")
    assert names(browser) == [1]
    browser.click("#invented")
    browser.press("/", "PAGE 03")
    assert names(browser) == [6, 7]
    browser.press("zzz")
    assert "No face matches these filters." in browser.one("#faces").text
    show(browser, "reject")
    assert names(browser) == []


def test_many_faces_come_in_pages_and_only_a_pages_pictures_are_asked_for(browser, tmp_path):
    page = review_pages.write_output(tmp_path, [review_pages.face(i) for i in range(60)])
    browser.open(page.as_uri())
    assert names(browser) == list(range(59, 35, -1))
    assert browser.one("#where").text == "1–24 of 60"
    assert {one.get_attribute("loading") for one in browser.all("#faces img")} == {"lazy"}
    browser.press("n", "n")
    assert names(browser) == list(range(11, -1, -1))
    browser.press("n")
    assert said(browser) == "This is the last face."
    browser.press("p", "k")
    assert names(browser) == list(range(59, 35, -1))
    assert current(browser).get_attribute("data-picture") == "album/page 18.jpg"
    browser.press("j")
    assert names(browser) == list(range(35, 11, -1))
    asked = {urlsplit(a).path.rpartition("/review/")[2] for a in browser.requests()}
    # the pictures of the last pages' ends lie far below what was seen
    assert review_pages.face(59).src in asked and review_pages.face(25).src not in asked


def test_a_picture_that_is_missing_is_said_to_be(browser, page):
    browser.open(page.as_uri())
    browser.run("const i = document.querySelector('.before'); i.src = i.src.replace('tiles/', 'tiles/gone/')")
    browser.wait(lambda: browser.all(".tile.missing"))
    assert "could not be loaded" in browser.one(".tile").get_attribute("title")
    assert any("ERR_FILE_NOT_FOUND" in line for line in browser.errors())


def test_names_of_pictures_are_texts(browser, tmp_path):
    page = review_pages.write_output(tmp_path, [review_pages.face(0, picture=HOSTILE, treatment=HOSTILE)])
    browser.open(page.as_uri())
    assert browser.one(".face .name").text == HOSTILE
    assert browser.all("img[onerror]") == []
    browser.press("a")
    assert said(browser).startswith(f"{HOSTILE}, face 0: accepted")
    assert list(saved_file(downloaded(browser))) == [(HOSTILE, 0)]


# ---------------------------------------------------------------------------------------------- judging


def test_keys_accept_reject_redo_and_undo(browser, page):
    browser.open(page.as_uri())
    browser.press("a", "r", "d")
    browser.wait(lambda: browser.one("#redo").is_displayed())
    browser.press("2")
    assert [state(browser, n) for n in (7, 6, 5, 2)] == ["accept", "reject", "redo", "open"]
    assert "redo with the estimator alone" in current(browser).text
    assert counts(browser) == {"all": 8, "open": 4, "accept": 2, "reject": 1, "redo": 1}
    browser.press("u")
    assert [state(browser, n) for n in (7, 6, 5)] == ["accept", "reject", "open"]
    browser.press("u", "u")
    assert counts(browser) == {"all": 8, "open": 7, "accept": 1, "reject": 0, "redo": 0}
    assert "album/page 03.jpg" in current(browser).text
    browser.press("u")
    assert said(browser) == "There is nothing to undo."


def test_the_mouse_accepts_rejects_redoes_and_undoes(browser, page):
    browser.open(page.as_uri())
    faces = browser.all(".face")
    browser.click("[data-verdict=accept]", faces[0])
    browser.click("[data-verdict=reject]", faces[1])
    browser.click("[data-verdict=redo]", faces[2])
    browser.one("[name=eta]").send_keys("2")
    browser.click("#redo [type=submit]")
    assert browser.one("#redo-wrong").text == "η is a number from 0 to 1; got 2."
    browser.one("[name=eta]").clear()
    browser.one("[name=hold]").send_keys("Infinity")
    browser.click("#redo [type=submit]")
    assert browser.one("#redo-wrong").text == "σ is a number from 0; got Infinity."
    browser.one("[name=hold]").clear()
    browser.one("[name=eta]").send_keys("0,5")
    browser.one("[name=start_step]").send_keys("120")
    browser.click("#redo [type=submit]")
    assert [one.get_attribute("data-state") for one in faces[:4]] == ["accept", "reject", "redo", "open"]
    assert "redo with N 120, η 0.5" in faces[2].text
    # a verdict replaces the one before it
    browser.click("[data-verdict=reject]", faces[0])
    assert counts(browser) == {"all": 8, "open": 4, "accept": 1, "reject": 2, "redo": 1}
    browser.click("#undo")
    browser.click("#undo")
    assert [one.get_attribute("data-state") for one in faces[:4]] == ["accept", "reject", "open", "open"]


def test_a_face_that_can_not_be_restored_again_offers_no_redo(browser, page):
    browser.open(page.as_uri())
    last = browser.all(".face")[-1]
    assert not last.find_element(By.CSS_SELECTOR, "[data-verdict=redo]").is_enabled()
    browser.run("arguments[0].focus()", last)
    browser.press("d")
    assert said(browser) == "This face can not be restored again."
    assert not browser.one("#redo").is_displayed()


def test_accepting_a_page_takes_its_open_faces_and_is_one_step(browser, page):
    browser.open(page.as_uri())
    browser.press("r")
    assert browser.one("#accept-page").text == "Accept the 6 open here"
    browser.click("#accept-page")
    assert counts(browser) == {"all": 8, "open": 0, "accept": 7, "reject": 1, "redo": 0}
    assert not browser.one("#accept-page").is_enabled()
    show(browser, "open")
    assert "Nothing is left to look at." in browser.one("#faces").text
    browser.click("#undo")
    assert counts(browser) == {"all": 8, "open": 6, "accept": 1, "reject": 1, "redo": 0}


def test_a_new_verdict_counts_more_than_one_that_was_carried_out(browser, page):
    browser.open(page.as_uri())
    show(browser, "accept")
    assert names(browser) == [3]
    browser.press("r")
    assert counts(browser)["reject"] == 1 and counts(browser)["accept"] == 0
    browser.press("u")
    assert counts(browser)["reject"] == 0 and counts(browser)["accept"] == 1


# ---------------------------------------------------------------------------------------------- keeping


def test_verdicts_and_the_name_survive_a_reload(browser, page):
    browser.open(page.as_uri())
    browser.one("#who").send_keys("Grace", Keys.TAB)
    browser.run("document.activeElement.blur()")
    browser.press("a", "r", "d")
    browser.press("1")
    browser.press("u")
    browser.driver.refresh()
    assert counts(browser) == {"all": 8, "open": 5, "accept": 2, "reject": 1, "redo": 0}
    show(browser, "reject")
    assert "rejected by Grace" in browser.one(".face").text
    assert browser.one("#who").get_attribute("value") == "Grace"


def test_a_browser_that_keeps_nothing_says_so_and_works(browser, page):
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no') }})"
    with browser.prepared(refuse):
        browser.driver.get(page.as_uri())
        browser.press("a")
        assert counts(browser)["accept"] == 2
        assert "keeps nothing" in browser.one("#keeping").text
        leave = "const e = new Event('beforeunload', {cancelable: true}); dispatchEvent(e); return e.defaultPrevented"
        # what would be lost is asked about
        assert browser.run(leave)
        downloaded(browser)
        assert not browser.run(leave)


def test_a_download_holds_the_verdicts_and_the_page_shows_the_command(browser, page):
    browser.open(page.as_uri())
    browser.press("a", "r", "d")
    browser.press("1")
    browser.press("u", "d")
    browser.press("3")
    browser.press("s")
    browser.one("#name-field").send_keys("Grace", Keys.ENTER)
    browser.wait(lambda: browser.one("#saved").is_displayed())
    assert browser.one("#command").text == review_pages.COMMAND
    found = saved_file(taken(browser))
    # sorted, the face that was carried out is not among them, and who and when are there
    assert list(found) == [("album/page 02.jpg", 1), ("album/page 03.jpg", 0), ("album/page 03.jpg", 1)]
    at = {one.pop("at") for one in found.values()}
    assert all(len(one) == 20 and one[10] == "T" and one[-1] == "Z" for one in at)
    face = review_pages.face(7)
    assert found["album/page 03.jpg", 1] == {
        "unit": face.unit,
        "place": face.place,
        "picture": face.picture,
        "face": face.face,
        "sha256": face.sha256,
        "verdict": "accept",
        "who": "Grace",
    }
    assert found["album/page 03.jpg", 0]["verdict"] == "reject"
    assert found["album/page 02.jpg", 1]["settings"] == {"seed": 7}
    browser.press(Keys.ESCAPE)
    assert browser.one("#save").text == "Saved"
    browser.press("a")
    assert browser.one("#save").text == "Save 3 verdicts"


def test_earlier_verdicts_are_taken_where_they_are_newer_and_of_this_run(browser, page, tmp_path):
    def file(name: str, **values: object) -> str:
        one = {"unit": "shard-000-0000", "place": 3, "face": 1, "sha256": f"{3:064x}", "verdict": "reject"}
        verdicts = [
            one | {"picture": "p", "who": "Ada", "at": "2026-01-01T00:00:00Z"},
            # older than what was carried out; of another picture
            one | {"place": 1, "sha256": f"{1:064x}", "at": "2025-01-01T00:00:00Z"},
            one | {"sha256": "0", "at": "2026-01-01T00:00:00Z"},
        ]
        whole = {"format": "difface verdicts 1", "run": review_pages.RUN, "verdicts": verdicts} | values
        path = tmp_path / name
        path.write_text(json.dumps(whole))
        return str(path)

    browser.open(page.as_uri())
    field = browser.one("#import")
    field.send_keys(file("another.json", run="another"))
    browser.wait(lambda: "another run" in said(browser))
    assert counts(browser)["open"] == 7
    field.send_keys(file("good.json"))
    browser.wait(lambda: "1 verdicts taken from good.json; 1 are of no face" in said(browser))
    assert counts(browser) == {"all": 8, "open": 6, "accept": 1, "reject": 1, "redo": 0}
    assert "rejected by Ada" in browser.one(".face").text


# ---------------------------------------------------------------------------------------------- the server


def test_the_server_gets_the_verdicts_and_gives_them_to_the_next_browser(browser, tmp_path):
    review_pages.write_output(tmp_path, review_pages.few_faces())
    with review_pages.served(str(tmp_path)) as (address, _):
        browser.open(address)
        browser.one("#who").send_keys("Grace", Keys.TAB)
        browser.run("document.activeElement.blur()")
        loaded = "return document.querySelector('.face .before').naturalWidth"
        assert browser.wait(lambda: browser.run(loaded)) == 2 * review_pages.TILE[0]
        browser.press("a", "r", "s")
        browser.wait(lambda: browser.one("#saved").is_displayed())
        assert said(browser) == "Saved: 2 verdicts." and browser.one("#command").text == review_pages.COMMAND
        found = saved_file((tmp_path / "review" / "verdicts.json").read_text())
        assert {key: one["verdict"] for key, one in found.items()} == {
            ("album/page 03.jpg", 0): "reject",
            ("album/page 03.jpg", 1): "accept",
        }
        browser.press(Keys.ESCAPE)
        browser.click("#download")
        assert taken(browser) == (tmp_path / "review" / "verdicts.json").read_text()
        browser.open(address)
        browser.wait(lambda: counts(browser)["open"] == 5)
        assert browser.one("#save").text == "Saved"
        # what came from the output is no step to undo; a verdict that is pressed again is taken back, for good
        assert not browser.one("#undo").is_enabled()
        show(browser, "reject")
        browser.click(".face [data-verdict=reject]")
        assert said(browser) == "album/page 03.jpg, face 0: taken back"
        browser.click("#save")
        browser.click("#name-none")
        browser.wait(lambda: browser.one("#saved").is_displayed())
        assert counts(browser) == {"all": 8, "open": 6, "accept": 2, "reject": 0, "redo": 0}
        found = saved_file((tmp_path / "review" / "verdicts.json").read_text())
        assert [(one["picture"], one["who"]) for one in found.values()] == [("album/page 03.jpg", "Grace")]


def test_what_others_saved_meanwhile_is_kept(browser, tmp_path):
    review_pages.write_output(tmp_path, review_pages.few_faces())
    file = tmp_path / "review" / "verdicts.json"
    with review_pages.served(str(tmp_path)) as (address, _):
        browser.open(address)
        browser.press("j", "r", "s")
        browser.click("#name-none")
        browser.wait(lambda: browser.one("#saved").is_displayed())
        others = json.loads(file.read_text())
        one = {"place": 3, "face": 1, "who": "Ada", "at": "2026-01-01T00:00:00Z"}
        others["verdicts"][0] |= one
        file.write_text(json.dumps(others))
        browser.press(Keys.ESCAPE, "s")
        browser.wait(lambda: said(browser) == "Saved: 2 verdicts.")
        found = saved_file(file.read_text())
        assert {key: verdict["who"] for key, verdict in found.items()} == {
            ("album/page 03.jpg", 0): "",
            ("album/page 03.jpg", 1): "Ada",
        }
        # a file of another run is replaced
        file.write_text(json.dumps(others | {"run": "another"}))
        browser.press(Keys.ESCAPE, "s")
        # the server may end when it has answered
        browser.wait(lambda: browser.one("#saved").is_displayed())
        assert len(saved_run(file)) == 2


def saved_run(file: Path) -> list:
    """The verdicts of a file of this run; none of another's."""
    saved = json.loads(file.read_text())
    return saved["verdicts"] if saved["run"] == review_pages.RUN else []


def test_a_server_that_is_gone_is_one_sentence_and_nothing_is_lost(browser, tmp_path):
    review_pages.write_output(tmp_path, review_pages.few_faces())
    with review_pages.served(str(tmp_path)) as (address, child):
        browser.open(address)
        browser.press("a")
        child.kill()
        child.wait()
        browser.press("s")
        browser.click("#name-none")
        browser.wait(lambda: said(browser).startswith("Not saved: the server does not answer."))
    assert counts(browser)["accept"] == 2 and browser.one("#save").text == "Save 1 verdict"
    refused = [line for line in browser.errors() if "net::ERR_" not in line]
    assert refused == []


def test_a_page_in_a_bucket_is_opened_by_signed_addresses(browser, s3, tmp_path):
    bucket = S3FileSystem(endpoint_url=s3.endpoint)
    root = f"{s3.uri}/signed/review"
    review_pages.write_output(tmp_path, [review_pages.face(0)])
    face = review_pages.face(0)
    for name in (face.src, face.more):
        bucket.put_file(str(tmp_path / "review" / name), f"{root}/{name}")
    signed = replace(face, src=bucket.sign(f"{root}/{face.src}"), more=bucket.sign(f"{root}/{face.more}"))
    page = review_document(review_pages.data_of([signed]))
    bucket.pipe_file(f"{root}/index.html", page.encode(), ContentType="text/html; charset=utf-8")
    browser.open(bucket.sign(f"{root}/index.html"))
    for image in (".before", ".after", ".part"):
        loaded = f"return document.querySelector('.face {image}').naturalWidth"
        assert browser.wait(lambda: browser.run(loaded)) > 0  # noqa: B023  # waited for here
    browser.press("a")
    assert list(saved_file(downloaded(browser))) == [("album/page 00.jpg", 0)]
