"""The grays of DICOM files: one picture stored in many ways is one picture, and what is uncertain is refused."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dualview.data.images import dicom, dicom_tags, gray_scale
from dualview.data.images.files import read_picture
from dualview.errors import BadImage
from tests.support.pictures import lookup_table, palette, write_dicom

RAMP = np.arange(4096).reshape(64, 64)  # every value of 12 bits
SLOPE, INTERCEPT = "RescaleSlope", "RescaleIntercept"
WINDOW_1000_TO_3000 = np.clip((RAMP - 2000) / 2000 + 0.5, 0, 1)  # LINEAR_EXACT, centre 2000, width 2000
EXACT = {"VOILUTFunction": "LINEAR_EXACT"}


@pytest.fixture
def shown(tmp_path):
    def shown(stored, **settings):
        intensity_max = settings.pop("intensity_max", None)
        return read_picture(write_dicom(tmp_path / "a.dcm", stored, **settings), name="a", intensity_max=intensity_max)

    return shown


@pytest.mark.parametrize(
    ("stored", "tags", "expected"),
    [
        # Values of a negative slope run the other way, and the window is laid on them (C.11.1.1.2).
        (4095 - RAMP, {SLOPE: "-1", INTERCEPT: "4095", "WindowCenter": 2000, "WindowWidth": 2000}, WINDOW_1000_TO_3000),
        (4095 - RAMP, {SLOPE: "-1", "WindowCenter": -2095, "WindowWidth": 2000}, WINDOW_1000_TO_3000),
        (RAMP, {INTERCEPT: "-1024", "WindowCenter": 976, "WindowWidth": 2000}, WINDOW_1000_TO_3000),
        (RAMP, {SLOPE: "0.5", "WindowCenter": 1000, "WindowWidth": 1000}, WINDOW_1000_TO_3000),
        (RAMP, {SLOPE: None, INTERCEPT: None, "WindowCenter": 2000, "WindowWidth": 2000}, WINDOW_1000_TO_3000),
        # Without a window it is the range of the transformed values.
        (RAMP, {SLOPE: "-1", INTERCEPT: "4095"}, 1 - RAMP / 4095),
        (RAMP, {SLOPE: "-0.5"}, 1 - RAMP / 4095),
        (RAMP, {INTERCEPT: "1024"}, RAMP / 4095),
        (RAMP, {SLOPE: "2"}, RAMP / 4095),
        (RAMP, {SLOPE: "", INTERCEPT: ""}, RAMP / 4095),
        (RAMP, {SLOPE: None}, RAMP / 4095),
        (RAMP - 2048, {"signed": True, SLOPE: "-3", INTERCEPT: "7"}, 1 - RAMP / 4095),
    ],
)
def test_slope_and_intercept_have_one_meaning_for_pixels_and_range(shown, stored, tags, expected):
    picture = shown(stored, **EXACT, **tags)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)
    assert not picture.remarks


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({0x00281053: ("DS", b"abc ")}, "RescaleSlope that is not one finite number"),
        ({0x00281053: ("DS", b"nan ")}, "RescaleSlope that is not one finite number"),
        ({0x00281052: ("DS", b"1e999 ")}, "RescaleIntercept that is not one finite number"),
        ({0x00281053: ("DS", b"1\\2 ")}, "RescaleSlope that is not one finite number"),
        ({0x00281053: ("DS", b"0.0 ")}, "RescaleSlope of 0"),
        ({0x00281052: ("DS", b"1e30")}, "slope and intercept that give values from 1e"),
    ],
)
def test_a_rescale_that_says_nothing_is_refused(shown, raw, reason):
    with pytest.raises(BadImage, match=reason):
        shown(RAMP, raw=raw)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", np.clip((RAMP - 1999.5) / 1999 + 0.5, 0, 1)),
        ("LINEAR_EXACT", WINDOW_1000_TO_3000),
        ("SIGMOID", 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 2000))),
    ],
)
def test_each_function_of_a_window_is_that_of_the_standard(shown, function, expected):
    picture = shown(RAMP, WindowCenter=2000, WindowWidth=2000, VOILUTFunction=function)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "raw", "kind"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 0}, None, dicom_tags.BAD_WINDOW),
        ({"WindowCenter": 2000, "WindowWidth": 0.5}, None, dicom_tags.BAD_WINDOW),
        ({"WindowCenter": 2000, "WindowWidth": -200}, None, dicom_tags.BAD_WINDOW),
        ({"WindowCenter": 2000, "WindowWidth": 0, **EXACT}, None, dicom_tags.BAD_WINDOW),
        ({"WindowCenter": 2000}, None, dicom_tags.BAD_WINDOW),
        ({}, {0x00281050: ("DS", b"NORM"), 0x00281051: ("DS", b"2000")}, dicom_tags.BAD_WINDOW),
        ({}, {0x00281050: ("DS", b"2000"), 0x00281051: ("DS", b"nan ")}, dicom_tags.BAD_WINDOW),
        ({}, {0x00281050: ("DS", b"inf "), 0x00281051: ("DS", b"10")}, dicom_tags.BAD_WINDOW),
        ({"WindowCenter": 60000, "WindowWidth": 100}, None, gray_scale.WINDOW_MISSES),
        ({"WindowCenter": -500, "WindowWidth": 100}, None, gray_scale.WINDOW_MISSES),
        ({"WindowCenter": 2000, "WindowWidth": 1e9}, None, gray_scale.WINDOW_MISSES),
        ({"WindowCenter": -9999, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}, None, gray_scale.WINDOW_MISSES),
        ({"WindowCenter": 2000, "WindowWidth": 100, "VOILUTFunction": "CUBIC"}, None, dicom_tags.BAD_FUNCTION),
    ],
)
def test_a_window_that_cannot_be_used_counts_as_absent_and_is_told(shown, tags, raw, kind):
    picture = shown(RAMP, raw=raw, **tags)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    assert picture.remarks == (kind,)


@pytest.mark.parametrize(
    ("stored", "centre", "width"),
    [
        (np.where(RAMP < 20, 4095, RAMP // 4), 4000, 100),  # a burnt-in letter alone
        (np.where(RAMP < 400, 0, 1000 + RAMP // 4), 500, 800),  # between the border and the body
        (RAMP, 2048, 1),
        (RAMP, 2048, 2),
        (RAMP, 2048, 30),
    ],
)
def test_a_window_that_shows_black_and_white_alone_counts_as_absent(shown, stored, centre, width):
    picture = shown(stored, WindowCenter=centre, WindowWidth=width)
    np.testing.assert_allclose(picture.pixels, stored / 4095, atol=1e-6)
    assert picture.remarks == (gray_scale.WINDOW_MISSES,)
    narrow = shown(RAMP, WindowCenter=2048, WindowWidth=100)
    np.testing.assert_allclose(narrow.pixels, np.clip((RAMP - 2047.5) / 99 + 0.5, 0, 1), atol=1e-6)


def test_the_groups_of_an_enhanced_object_are_read(shown):
    voi, transform, group = Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = 976, 2000, "LINEAR_EXACT"
    transform.RescaleSlope, transform.RescaleIntercept = 1, -1024
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [voi], [transform]
    picture = shown(RAMP, SharedFunctionalGroupsSequence=[group])
    np.testing.assert_allclose(picture.pixels, WINDOW_1000_TO_3000, atol=1e-6)


def test_the_first_window_that_can_be_used_is(shown):
    picture = shown(RAMP, WindowCenter=[100, 90000, 2000, 50], WindowWidth=[0, 10, 2000, 100], **EXACT)
    np.testing.assert_allclose(picture.pixels, WINDOW_1000_TO_3000, atol=1e-6)
    assert set(picture.remarks) == {dicom_tags.BAD_WINDOW, gray_scale.WINDOW_MISSES}
    assert shown(RAMP, WindowCenter=[2000, 50], WindowWidth=[2000, 100], **EXACT).remarks == ()


ROOT = np.sqrt(np.arange(4096) / 4095)  # the shape of a table, in [0, 1]


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("entries", "bits", "packed", "white"),
    [
        (ROOT * 4095, 16, False, 4095),  # 12-bit data declared as 16
        (ROOT * 4095, 12, False, 4095),
        (ROOT * 1023, 12, False, 1023),
        (ROOT * 255, 16, False, 255),
        (ROOT * 65535, 16, False, 65535),
        (ROOT * 4095, 8, False, 4095),  # more than declared
        (ROOT * 4096, 12, False, 4096),  # counted from 1
        (ROOT * 255, 8, True, 255),  # two entries in a word
    ],
)
def test_a_table_is_scaled_by_the_values_that_it_has(shown, sequence, entries, bits, packed, white):
    entries = entries.round()
    picture = shown(RAMP, **{sequence: [lookup_table(0, entries, bits=bits, packed=packed)]})
    np.testing.assert_allclose(picture.pixels, (entries / white)[RAMP], atol=1e-6)
    assert picture.remarks == ()


def test_a_table_of_65536_entries_says_0_and_values_beyond_a_table_take_its_end(shown):
    whole = shown(RAMP * 16, bits=16, VOILUTSequence=[lookup_table(0, np.arange(65536)[::-1], bits=16)])
    np.testing.assert_allclose(whole.pixels, 1 - RAMP * 16 / 65535, atol=1e-6)
    part = shown(RAMP, VOILUTSequence=[lookup_table(1000, np.arange(1024), bits=10)])
    np.testing.assert_allclose(part.pixels, np.clip(RAMP - 1000, 0, 1023) / 1023, atol=1e-6)


@pytest.mark.parametrize("first", [-2048, -1000])
def test_a_table_may_begin_below_zero(shown, first):
    """Signed values, and unsigned ones that an intercept moves below zero; the descriptor is of words."""
    entries = np.arange(4096)
    expected = np.clip(RAMP - 2048 - first, 0, 4095) / 4095
    table = lookup_table(first, entries, bits=12)
    np.testing.assert_allclose(shown(RAMP - 2048, signed=True, VOILUTSequence=[table]).pixels, expected, atol=1e-6)
    moved = shown(RAMP, RescaleIntercept="-2048", VOILUTSequence=[table])
    np.testing.assert_allclose(moved.pixels, expected, atol=1e-6)
    unsigned = Dataset()
    unsigned.add_new("LUTDescriptor", "US", [4096, first % 65536, 12])
    unsigned.LUTData = table.LUTData
    unsigned["LUTData"].VR = "OW"
    same = shown(RAMP - 2048, signed=True, VOILUTSequence=[unsigned])
    np.testing.assert_allclose(same.pixels, expected, atol=1e-6)


def test_a_window_lies_on_the_entries_of_a_modality_table(shown):
    table = lookup_table(0, np.arange(4096)[::-1], bits=16)
    picture = shown(4095 - RAMP, ModalityLUTSequence=[table], WindowCenter=2000, WindowWidth=2000, **EXACT)
    np.testing.assert_allclose(picture.pixels, WINDOW_1000_TO_3000, atol=1e-6)


def descriptor_only(num_entries=4096):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [num_entries, 0, 12])
    return item


def test_a_table_without_data_counts_as_absent(shown):
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        tags = {sequence: [descriptor_only()], "WindowCenter": 2000, "WindowWidth": 2000, **EXACT}
        picture = shown(RAMP, **tags)
        np.testing.assert_allclose(picture.pixels, WINDOW_1000_TO_3000, atol=1e-6)
        assert picture.remarks == (dicom_tags.NO_DATA,)
        assert shown(RAMP, **{sequence: []}).remarks == ()


def test_a_table_that_is_cut_or_shows_one_gray_is_not_used(shown):
    cut = lookup_table(0, np.arange(100), bits=12)
    cut.LUTDescriptor = [4096, 0, 12]
    with pytest.raises(BadImage, match="100 entries of LUTData where LUTDescriptor promises 4096"):
        shown(RAMP, ModalityLUTSequence=[cut])
    flat = lookup_table(0, np.full(4096, 700), bits=12)
    for table, kind in ((cut, dicom_tags.BAD_TABLE), (flat, gray_scale.TABLE_MISSES)):
        picture = shown(RAMP, VOILUTSequence=[table], WindowCenter=2000, WindowWidth=2000, **EXACT)
        np.testing.assert_allclose(picture.pixels, WINDOW_1000_TO_3000, atol=1e-6)
        assert picture.remarks == (kind,)


# -- black, white, padding ---------------------------------------------------------------------------


def test_monochrome1_is_inverted_once_and_after_the_window(shown):
    tags = {"WindowCenter": 2000, "WindowWidth": 2000, **EXACT}
    for shape, kinds in (({}, ()), ({"PresentationLUTShape": "INVERSE"}, ())):
        picture = shown(RAMP, photometric="MONOCHROME1", **shape, **tags)
        np.testing.assert_allclose(picture.pixels, 1 - WINDOW_1000_TO_3000, atol=1e-6)
        assert picture.remarks == kinds
    contradicting = shown(RAMP, photometric="MONOCHROME1", PresentationLUTShape="IDENTITY")
    np.testing.assert_allclose(contradicting.pixels, 1 - RAMP / 4095, atol=1e-6)
    assert contradicting.remarks == (dicom.CONTRADICTING_SHAPE,)
    assert shown(RAMP, PresentationLUTShape="IDENTITY").remarks == ()
    with pytest.raises(BadImage, match="PresentationLUTShape INVERSE"):
        shown(RAMP, PresentationLUTShape="INVERSE")


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("signed", "value", "limit"),
    [(False, 0, None), (False, 4095, None), (False, 4095, 4000), (True, -2048, None), (True, -2048, -2000)],
)
def test_padding_is_black_in_either_photometric_interpretation(shown, photometric, signed, value, limit):
    stored = RAMP - 2048 if signed else RAMP
    tags = {"PixelPaddingValue": value % 65536}
    if limit is not None:
        tags["PixelPaddingRangeLimit"] = limit % 65536
    kind = "SS" if signed else "US"
    raw = {
        {"PixelPaddingValue": 0x00280120, "PixelPaddingRangeLimit": 0x00280121}[name]: (
            kind,
            number.to_bytes(2, "little"),
        )
        for name, number in tags.items()
    }
    whole = shown(stored, photometric=photometric, signed=signed).pixels
    padded = shown(stored, photometric=photometric, signed=signed, raw=raw).pixels
    low, high = sorted((value, value if limit is None else limit))
    is_padding = (stored >= low) & (stored <= high)
    assert is_padding.any() and (padded[is_padding] == 0).all()
    np.testing.assert_array_equal(padded[~is_padding], whole[~is_padding])


def test_padding_outside_the_stored_bits_and_padding_alone_do_no_harm(shown):
    """A scanner writes 65535 beside 12-bit values; and a window is not missed because of padding."""
    stored = RAMP.copy()
    stored[:8] = 65535
    picture = shown(stored, PixelPaddingValue=65535, WindowCenter=2000, WindowWidth=2000, **EXACT)
    assert (picture.pixels[:8] == 0).all()
    np.testing.assert_allclose(picture.pixels[8:], WINDOW_1000_TO_3000[8:], atol=1e-6)
    assert (shown(np.full((64, 64), 7), PixelPaddingValue=7, photometric="MONOCHROME1").pixels == 0).all()


# -- which bits --------------------------------------------------------------------------------------


def test_stored_bits_in_the_upper_part_are_shifted(shown):
    picture = shown(RAMP << 4, BitsStored=12, HighBit=15, bits=16)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    signed = shown((RAMP - 2048) << 2, BitsStored=12, HighBit=13, bits=16, signed=True)
    np.testing.assert_allclose(signed.pixels, RAMP / 4095, atol=1e-6)


def test_overlays_among_the_pixels_are_not_shown(shown):
    stored = RAMP | np.where(np.arange(4096).reshape(64, 64) % 7 == 0, 1 << 15, 0)
    overlay = {0x60000102: ("US", b"\x0f\x00")}
    np.testing.assert_allclose(shown(stored, raw=overlay).pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("stored", "tags", "reason"),
    [
        (RAMP * 16, {}, "values as large as 65520, but BitsStored says 12 bits"),
        (RAMP, {"BitsStored": 12, "HighBit": 15, "bits": 16}, "the highest bits are never used"),
        (RAMP, {"BitsStored": 17}, "do not go together"),
        (RAMP, {"HighBit": 9}, "do not go together"),
        (RAMP, {"HighBit": 16}, "do not go together"),
        (RAMP, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "8192 bytes of pixel data"),
        (RAMP, {"photometric": ""}, "PhotometricInterpretation blank"),
        (RAMP, {"photometric": "RGB"}, "PhotometricInterpretation RGB with 1 samples"),
    ],
)
def test_bits_that_contradict_each_other_are_refused(shown, stored, tags, reason):
    with pytest.raises(BadImage, match=reason):
        shown(stored, **tags)


def test_float_pixels_are_refused(tmp_path, shown):
    import pydicom  # noqa: PLC0415

    data = pydicom.dcmread(write_dicom(tmp_path / "f.dcm", RAMP))
    del data.PixelData
    data.FloatPixelData = RAMP.astype("<f4").tobytes()
    data.save_as(tmp_path / "f.dcm")
    with pytest.raises(BadImage, match="floating-point pixels"):
        read_picture(tmp_path / "f.dcm", name="f")


# -- palettes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_color_shows_its_palette(shown, bits):
    white = 2**bits - 1
    places = RAMP // 16
    entries = np.arange(256)[::-1] * white // 255
    gray = shown(places, bits=8, photometric="PALETTE COLOR", **palette(entries, entries, entries, bits=bits))
    np.testing.assert_allclose(gray.pixels, (entries / white)[places], atol=1e-6)
    red = shown(places, bits=8, photometric="PALETTE COLOR", **palette(entries, entries * 0, entries * 0, bits=bits))
    np.testing.assert_allclose(red.pixels, 0.299 * (entries / white)[places], atol=1e-6)


def test_a_palette_of_more_than_256_entries_of_8_bits_and_one_of_16_that_are_8(shown):
    entries = np.arange(4096) // 16
    many = shown(RAMP, photometric="PALETTE COLOR", **palette(entries, entries, entries, bits=8))
    np.testing.assert_allclose(many.pixels, RAMP // 16 / 255, atol=1e-6)
    declared = shown(RAMP, photometric="PALETTE COLOR", **palette(entries, entries, entries, bits=16))
    np.testing.assert_allclose(declared.pixels, RAMP // 16 / 255, atol=1e-6)


def test_a_segmented_palette_is_expanded(shown):
    """C.7.9.2: 0 with a run of entries, 1 with a straight line to an entry."""
    tags = {}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        segments = np.array([0, 1, 0, 1, 255, 65535], "<u2")
        tags[f"Segmented{name}PaletteColorLookupTableData"] = segments.tobytes()
    picture = shown(RAMP // 16, bits=8, photometric="PALETTE COLOR", **tags)
    np.testing.assert_allclose(picture.pixels, RAMP // 16 / 255, atol=1e-5)


def test_a_palette_that_is_not_there_is_refused(shown):
    with pytest.raises(BadImage, match="no RedPaletteColorLookupTableData"):
        shown(RAMP, photometric="PALETTE COLOR")


# -- what is white -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 32768, "WindowWidth": 65536},
        {"WindowCenter": 32767.5, "WindowWidth": 65535, **EXACT},
        {"WindowCenter": 31744, "WindowWidth": 65536, INTERCEPT: "-1024"},
    ],
)
def test_a_window_of_the_whole_range_says_no_more_than_the_bits(shown, tags):
    told = shown(RAMP, bits=16, LargestImagePixelValue=4095, **tags)
    np.testing.assert_allclose(told.pixels, RAMP / 65535, atol=1e-6)
    assert (told.white, told.largest) == (65535, 4095)
    np.testing.assert_allclose(shown(RAMP, bits=16, intensity_max=4095, **tags).pixels, RAMP / 4095, atol=1e-6)
    chosen = {**tags, "WindowWidth": 60000}
    assert shown(RAMP, bits=16, intensity_max=4095, **chosen).white is None


def test_intensity_max_is_white_where_no_window_is(shown):
    dark = shown(RAMP, bits=16)
    assert dark.pixels.max() < 0.07 and dark.white == 65535
    picture = shown(RAMP, bits=16, intensity_max=4095)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    inverted = shown(RAMP, bits=16, intensity_max=4095, photometric="MONOCHROME1")
    np.testing.assert_allclose(inverted.pixels, 1 - RAMP / 4095, atol=1e-6)
    rescaled = shown(RAMP, bits=16, intensity_max=4095, RescaleSlope="-2", RescaleIntercept="5")
    np.testing.assert_allclose(rescaled.pixels, 1 - RAMP / 4095, atol=1e-6)
    windowed = shown(RAMP, bits=16, intensity_max=100, WindowCenter=2000, WindowWidth=2000, **EXACT)
    np.testing.assert_allclose(windowed.pixels, WINDOW_1000_TO_3000, atol=1e-6)
    assert windowed.white is None
    small = shown(RAMP // 16, bits=8, intensity_max=4095)  # A file that cannot hold it keeps its own range.
    np.testing.assert_allclose(small.pixels, RAMP // 16 / 255, atol=1e-6)
    exceeded = shown(RAMP, bits=16, intensity_max=2000)
    np.testing.assert_allclose(exceeded.pixels, (RAMP / 2000).clip(0, 1), atol=1e-6)
    assert exceeded.remarks == ("has values above data.intensity_max, which become white",)
    unsigned_in_signed = shown(RAMP, bits=16, signed=True, intensity_max=4095)
    np.testing.assert_allclose(unsigned_in_signed.pixels, RAMP / 4095, atol=1e-6)
    signed = shown(RAMP - 2048, bits=16, signed=True, intensity_max=2047)
    np.testing.assert_allclose(signed.pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("tag", ["LargestImagePixelValue", "LargestPixelValueInSeries"])
def test_the_largest_pixel_value_says_how_many_bits_are_used(shown, tag):
    for largest in (4095, 3000):
        picture = shown(RAMP.clip(0, largest), bits=16, **{tag: largest})
        np.testing.assert_allclose(picture.pixels, RAMP.clip(0, largest) / 4095, atol=1e-6)
        assert picture.remarks == (dicom.LARGEST_IS_WHITE,)
    for largest in (0, 100, 60000):  # empty, exceeded by pixels, or no reason to doubt BitsStored
        np.testing.assert_allclose(shown(RAMP, bits=16, **{tag: largest}).pixels, RAMP / 65535, atol=1e-6)
    windowed = shown(RAMP, bits=16, WindowCenter=2000, WindowWidth=2000, **EXACT, **{tag: 4095})
    np.testing.assert_allclose(windowed.pixels, WINDOW_1000_TO_3000, atol=1e-6)


# -- the file as a whole -----------------------------------------------------------------------------


def test_a_file_without_preamble_is_the_same_picture(tmp_path):
    whole = write_dicom(tmp_path / "a.dcm", RAMP)
    expected = read_picture(whole, name="a").pixels
    content = whole.read_bytes()
    (tmp_path / "with_meta").write_bytes(content[132:])
    length = int.from_bytes(content[140:144], "little")
    (tmp_path / "data_set_only.png").write_bytes(content[144 + length :])
    for name in ("with_meta", "data_set_only.png"):
        np.testing.assert_array_equal(read_picture(tmp_path / name, name=name).pixels, expected)


def test_what_pydicom_says_is_counted_and_not_shown(tmp_path, capfd):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW")
    longer = data[: at + 8] + (8192 + 100).to_bytes(4, "little") + data[at + 12 :] + bytes(100)
    path.write_bytes(longer)
    picture = read_picture(path, name="a")
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    (kind,) = picture.remarks
    assert kind.startswith("pydicom: The pixel data is … bytes long")
    assert capfd.readouterr() == ("", "")
