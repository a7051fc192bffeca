"""A short run of the fuzzer with fixed seeds, and what longer runs have found."""

import pytest
from hostile import corpus, fuzz


@pytest.mark.parametrize(("target", "examples"), [("pictures", 400), ("tars", 120), ("parquets", 80)])
def test_mutations_of_good_and_bad_files_give_results_or_the_documented_errors(target, examples):
    fuzz.fuzz(target, examples, number=1)


def test_a_finding_carries_the_bytes_that_show_it(monkeypatch):
    def broken(data: bytes) -> None:
        if len(data) < 2000:
            raise KeyError("no such thing")

    monkeypatch.setitem(fuzz.TARGETS, "pictures", (fuzz.pictures, broken))
    with pytest.raises(KeyError) as caught:
        fuzz.fuzz("pictures", 200, number=1)
    (note, *_) = caught.value.__notes__
    data = bytes.fromhex(note.rpartition(" ")[2])
    assert len(data) < 2000 and f"changed to {len(data)} bytes" in note


FOUND = {
    # the segments of a JPEG were walked past the end of the file
    "junk between segments": corpus.with_junk_between_segments(),
    # a profile that is none, of a picture that needs one
    "broken profile": corpus.cmyk(icc_profile=b"no profile" * 20),
    # a number of bits that is no list of numbers
    "no bits": corpus.tiff_of(8, 8).replace(b"\x02\x01\x03\0\x01", b"\x02\x01\x02\0\x00") + bytes(64),
    # a picture of no pixels
    "no pixels": corpus.gif_of(0, 0).replace(b"\x2c\0\0\0\0\x40\0\x30\0", b"\x2c" + bytes(8)),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_in_pictures_stays_found(name):
    fuzz.check_picture(FOUND[name])
