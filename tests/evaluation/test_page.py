import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ct_hf.cli import main
from ct_hf.evaluation.page import write_plots, write_report


class Page(HTMLParser):
    """What a reader sees: headings, rows of tables, paragraphs, and the text of plots."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.rows = []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def words(self, tag):
        return [" ".join(text.split()) for text in self.texts.get(tag, [])]


@pytest.fixture
def folder(draw_results, tmp_path):
    def make(name, scores, change=None, **kwargs):
        drawn = draw_results(scores, **kwargs)
        if change:
            change(drawn.content)
        return drawn.write(tmp_path / name)

    return make


def strip(folder, name):
    (folder / "strips").mkdir(exist_ok=True)
    pixels = np.arange(40 * 90 * 3, dtype=np.uint32).reshape(40, 90, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "strips" / f"{name}.png")
    return (folder / "strips" / f"{name}.png").read_bytes()


def read(*folders, tmp_path):
    return Page(write_report(folders, tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


def test_one_data_set_has_its_tables_plots_frames_and_rules(folder, tmp_path):
    results = folder("a", {"teacher": 60.0, "student": 57.0}, fps=[20.0, 50.0])
    data = strip(results, "drawn-1")
    page = read(results, tmp_path=tmp_path)
    assert page.words("h1") == page.words("title") == ["Trackers on Drawn"]
    assert page.words("h2") == ["Drawn"]
    assert page.words("h3") == ["By sequence", "Frames", "How it was computed"]
    assert page.rows[1] == ["teacher", "12", "92.1", "60.0", "65.0", "100.0", "20.0", "1.00x"]
    assert page.rows[2] == ["student", "6", "46.0", "57.0", "62.0", "95.0", "50.0", "2.50x"]
    assert page.rows[-1] == ["drawn-2", "12", "60.0", "59.0"]
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert labels == [
        "success plot of Drawn",
        "precision plot of Drawn",
        "AUC against frames per second on Drawn",
        "AUC by sequence of Drawn",
    ]
    assert "[57.0, 50.0 FPS] student" in page.words("text")
    ((_, image),) = [entry for entry in page.tags if entry[0] == "img"]
    head, _, content = image["src"].partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(content) == data
    assert (image["width"], image["height"]) == ("90", "40")
    text = " ".join(page.words("p"))
    assert "3 sequences, 33 frames, protocol otb" in text
    assert "as papers on trackers quote it on OTB" in text
    assert (
        "teacher, student: cpu, float32, batch size 1, 1 thread, 5 frames of warm-up, clock: of update"
        in page.words("li")
    )
    assert not [attributes for tag, attributes in page.tags if attributes.get("class") == "notice"]


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("lasot", "quote it on LaSOT: AUC is"),
        ("uav", "quote it on UAV123: AUC is"),
        ("visible", "our own rules, for data without a protocol: AUC is"),
        ("got10k", "the rules of the GOT-10k toolkit: AO is"),
        ("trackingnet", "the rules of the TrackingNet devkit: success is"),
    ],
)
def test_page_says_by_whose_rules_it_was_computed(folder, tmp_path, protocol, words):
    page = read(folder("a", {"teacher": 60.0}, protocol=protocol), tmp_path=tmp_path)
    assert words in " ".join(page.words("p"))


def test_several_data_sets_have_a_section_each_and_one_summary(folder, tmp_path):
    first = folder("a", {"teacher": 60.0, "student": 57.0}, dataset="LaSOT", protocol="lasot")
    second = folder("b", {"teacher": 70.0, "other": 50.0}, dataset="GOT-10k", protocol="got10k")
    page = read(first, second, tmp_path=tmp_path)
    assert page.words("h1") == ["Trackers on 2 data sets"]
    assert page.words("h2") == ["LaSOT", "GOT-10k"]
    assert page.rows[:4] == [
        ["Tracker", "Parametersmillion", "LaSOTAUC, lasot", "GOT-10kAO, got10k"],
        ["teacher", "92.1", "60.0", "70.0"],
        ["student", "46.0", "57.0", "-"],
        ["other", "46.0", "-", "50.0"],
    ]
    assert any("different protocols" in text for text in page.words("p"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids) > 0


def test_two_folders_of_one_data_set_are_told_apart_by_their_folders(folder, tmp_path):
    first, second = folder("a", {"teacher": 60.0}), folder("b", {"teacher": 50.0})
    assert read(first, second, tmp_path=tmp_path).words("h2") == ["Drawn (a)", "Drawn (b)"]
    (tmp_path / "later").mkdir()
    third = (tmp_path / "later" / "a").absolute()
    shutil.copytree(first, third)
    assert read(first, third, tmp_path=tmp_path).words("h2") == [f"Drawn ({first})", f"Drawn ({third})"]


def test_no_name_is_markup_and_nothing_is_fetched(folder, tmp_path):
    evil = '<script>alert("1")</script>&amp;{{ 7 * 7 }}"\''

    def rename(content):
        content["sequences"][0]["name"] = evil
        for tracker in content["trackers"]:
            tracker["per_sequence"][evil] = tracker["per_sequence"].pop("drawn-0")
            tracker["speed"]["clock"] = evil
        content["commit"] = evil

    results = folder("a", {evil: 60.0, "b": 50.0}, rename, dataset=evil, fps=[1.0, 2.0])
    page = read(results, tmp_path=tmp_path)
    assert page.words("h2") == [evil]
    assert page.rows[1][0] == evil and page.rows[4][0] == evil
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    style = page.texts["style"][0]
    assert "url(" not in style and "@import" not in style


def test_page_follows_light_and_dark_and_fits_a_narrow_screen(folder, tmp_path):
    page = read(folder("a", {"teacher": 60.0}), tmp_path=tmp_path)
    style = page.texts["style"][0]
    light, dark = re.search(
        r":root \{(.*?)\}.*?prefers-color-scheme: dark\) \{ :root \{(.*?)\}", style, re.DOTALL
    ).groups()
    assert re.findall(r"--[\w-]+", light) == re.findall(r"--[\w-]+", dark) and light != dark
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    boxes = [attributes for tag, attributes in page.tags if attributes.get("class") == "scroll"]
    assert len(boxes) == [tag for tag, _ in page.tags].count("table") == 2


def test_trackers_without_some_sequences_and_unlike_speeds_are_pointed_out(folder, tmp_path):
    def change(content):
        del content["trackers"][1]["per_sequence"]["drawn-1"]
        content["trackers"][1]["speed"]["device"] = "cuda"

    page = read(folder("a", {"teacher": 60.0, "student": 50.0}, change, fps=[1.0, 2.0]), tmp_path=tmp_path)
    text = " ".join(page.words("p"))
    assert "student has no AUC on 1 of 3 sequences (drawn-1)" in text
    assert "Speeds were measured under different conditions" in text
    assert not any("frames per second" in attributes.get("aria-label", "") for _, attributes in page.tags)


def test_results_without_curves_speeds_and_sequences_are_still_a_page(folder, tmp_path):
    def empty(content):
        content["trackers"][0] |= {"curves": {}, "per_sequence": {"drawn-0": {"auc": None}}, "score": {"auc": None}}

    page = read(folder("a", {"teacher": 60.0}, empty), tmp_path=tmp_path)
    assert "svg" not in dict(page.tags)
    assert page.rows[1] == ["teacher", "12", "92.1"]
    assert page.rows[-1] == ["drawn-2", "12", "-"]


def test_picture_that_is_no_png_is_named(folder, tmp_path):
    results = folder("a", {"teacher": 60.0})
    (results / "strips").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    for data in (b"<svg onload=alert(1)>", buffer.getvalue(), strip(results, "good")[:-30]):
        (results / "strips" / "bad.png").write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.png is no readable PNG"):
            write_report([results], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_same_folder_twice_or_none_is_refused(folder, tmp_path):
    results = folder("a", {"teacher": 60.0})
    with pytest.raises(ValueError, match="`folders` must be at least one, each given once, got .*a, .*a"):
        write_report([results, results / ".." / "a"], tmp_path / "report.html")
    with pytest.raises(ValueError, match="got none"):
        write_report([], tmp_path / "report.html")


def test_plots_are_saved_by_folder_theme_and_format(folder, tmp_path):
    first = folder("a", {"teacher": 60.0, "student": 50.0}, fps=[1.0, 2.0])
    second = folder("deep/b", {"teacher": 60.0})
    files = write_plots([first, second], tmp_path / "plots")
    names = sorted(str(file.relative_to(tmp_path / "plots")) for file in files)
    assert all(file.is_file() for file in files)
    assert [name for name in names if name.endswith("-dark.png")] == [
        "a/precision-dark.png",
        "a/sequences-dark.png",
        "a/speed-dark.png",
        "a/success-dark.png",
        "b/precision-dark.png",
        "b/sequences-dark.png",
        "b/success-dark.png",
    ]
    assert len(names) == 7 * 4
    with pytest.raises(ValueError, match="distinct names for their plots, got a, a"):
        write_plots([first, folder("deep/a", {"teacher": 60.0})], tmp_path / "plots")


def test_command_saves_page_and_plots(folder, tmp_path, capsys):
    results = folder("a", {"teacher": 60.0})
    out, plots = tmp_path / "report.html", tmp_path / "plots"
    assert main(["report", str(results), "--out", str(out), "--plots", str(plots)]) == 0
    assert Page(out.read_text(encoding="utf-8")).words("h2") == ["Drawn"]
    printed = capsys.readouterr().out
    assert f"saved to {out}" in printed and f"saved 12 plots to {plots}" in printed


def test_command_names_what_is_wrong(folder, tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere"), "--out", str(tmp_path / "r.html")]) == 1
    assert "results.json is not there" in capsys.readouterr().err
