"""predict.py --html: a page of real sound, as Chromium shows and plays it."""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import FIXTURES, SAMPLE_RATE, as_events, error_line, run_script
from released import CKPT, clip
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from src.models.safe_loading import read_torch_file
from src.models.torch_files import write_torch_file
from src.tagging import Tagger, page
from src.tagging.found import decisions_of, found_in

MARKUP = "<img src=x onerror=alert(1)>\"'&amp;</script><script>alert(2)</script>"
WINDOWS = 1.0, 0.5  # s
NAMES = ("</script><b>.wav", '<img src=x onerror=alert(1)>".wav', "stereo.wav")  # of which the first is in a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings of soundscapes: two in a row, one, and one with two channels at another rate."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "<").mkdir()
    soundfile.write(folder / NAMES[0], np.concatenate([clip(0), clip(1)]), SAMPLE_RATE, subtype="PCM_24")
    soundfile.write(folder / NAMES[1], clip(2), SAMPLE_RATE)
    soundfile.write(folder / NAMES[2], np.stack([clip(3), clip(4)], axis=1), 44100, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def lbl_map(folder):
    """The first class is called by markup."""
    names = list(json.loads((FIXTURES / "lbl_map.json").read_text()))
    path = folder / "lbl_map.json"
    path.write_text(json.dumps({name: number for number, name in enumerate([MARKUP, *names[1:]])}))
    return path


@pytest.fixture(scope="module")
def checkpoint(folder, lbl_map):
    """A network of events with filters and thresholds. The first class is heard, and the last never."""
    content = read_torch_file(CKPT, "a checkpoint")
    tagger = folder / "tagger.ckpt"  # with what of 2021 is plain data
    cfg = {"cfg": content["hyper_parameters"]["cfg"]}
    write_torch_file(tagger, {"state_dict": content["state_dict"], "hyper_parameters": cfg})
    plain = as_events(tagger, folder / "plain.ckpt")
    highest = Tagger(plain, lbl_map, *WINDOWS)(folder / NAMES[0]).frames.values.max(axis=1)
    thresholds = [float(each) * 0.6 for each in highest[:9]] + [0.99] * 8 + [None]
    return as_events(tagger, folder / "events.ckpt", medians=[1, 3, 5] * 6, thresholds=thresholds)


@pytest.fixture(scope="module")
def pages(folder, lbl_map, checkpoint):
    """all.html, by a network of events, and one.html, by a tagger without thresholds."""
    windows = "--lbl_map", lbl_map, "--window", WINDOWS[0], "--hop", WINDOWS[1]
    files = [folder / name for name in NAMES]
    for name, path, audio in (("all", checkpoint, files), ("one", CKPT, files[:1])):
        words = "--ckpt_path", path, *windows, "--html", folder / f"{name}.html"
        run_script("predict.py", *words, "--audio", *audio, check=0)
    return folder


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1200,900", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    except WebDriverException as error:  # such as that Ubuntu's is a snap, which sees no other programs' folders
        pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium):
    """Behind each test: the console said nothing, no window asked anything, and nothing was requested from anywhere."""
    chromium.get("data:,")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requests = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    pages = [url for url in requests if url.startswith("file:") and url.partition("#")[0].endswith(".html")]
    assert pages and all(url in pages or url.startswith(("data:", "blob:")) for url in requests)


def shown(browser, path, number=None):
    """Open a page, or a recording in it, and wait until its sound is there."""
    browser.get(path.as_uri() + ("" if number is None else f"#{number}"))
    if number is not None:
        browser.refresh()  # where only what is behind the # differs, nothing is loaded
        WebDriverWait(browser, 20).until(lambda _: browser.execute_script("return player.readyState") >= 3)


def events_of(browser):
    """(lane, onset, offset, score) of the boxes that can be seen."""
    script = """return [...document.querySelectorAll(".event")].map(each => [
        recording.lanes.find(lane => lane.track === each.parentElement).label,
        Number(each.dataset.onset), Number(each.dataset.offset), Number(each.dataset.score)])"""
    return sorted(map(tuple, browser.execute_script(script)))


def playing(browser):
    """(s where the player is, whether it plays)."""
    return browser.execute_script("return [player.currentTime, !player.paused]")


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


def note_seeking(browser):
    script = "window.sought = null; player.addEventListener('seeking', () => { sought ??= player.currentTime })"
    browser.execute_script(script)


def place_sought(browser):
    """s that the player moved to since then, first of all."""
    return WebDriverWait(browser, 10).until(lambda _: browser.execute_script("return sought"))


def pause_at(browser, seconds):
    browser.execute_script("player.pause(); player.currentTime = arguments[0]", seconds)
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script("return at") == pytest.approx(seconds))


@pytest.mark.parametrize("name, number", [("all", 1), ("all", 3), ("one", 0)])
def test_boxes_are_the_events_that_python_finds(browser, pages, checkpoint, lbl_map, name, number):
    shown(browser, pages / f"{name}.html", number)
    tagger = Tagger(CKPT if name == "one" else checkpoint, lbl_map, *WINDOWS)
    found = found_in(tagger(pages / NAMES[max(number, 1) - 1]), decisions_of(tagger))
    due = [(tagger.classes[event.label], event.onset, event.offset, event.confidence) for event in found]
    assert events_of(browser) == sorted(due) and len(due) >= 3
    widths = browser.execute_script("""return [...document.querySelectorAll(".event")].map(each =>
        each.offsetWidth / each.parentElement.offsetWidth * recording.duration)""")
    assert np.abs(np.sort(widths) - np.sort([event.offset - event.onset for event in found])).max() < 0.05


def test_a_click_plays_from_there(browser, pages):
    shown(browser, pages / "all.html", 1)
    for selector, seconds in ((".picture .track", 7.5), (".lane .track", 2.5), (".lane:last-child .track", 5.0)):
        pause_at(browser, 0)
        track = browser.find_element(By.CSS_SELECTOR, selector)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", track)
        note_seeking(browser)
        across = (seconds / 10 - 0.5) * track.size["width"]
        webdriver.ActionChains(browser).move_to_element_with_offset(track, round(across), 0).click().perform()
        assert place_sought(browser) == pytest.approx(seconds, abs=0.1)
        WebDriverWait(browser, 10).until(lambda _, begin=seconds: playing(browser)[0] > begin + 0.1)
        assert playing(browser)[1]
        where = """const line = document.getElementById("playhead").getBoundingClientRect(),
            track = document.getElementById("picture").getBoundingClientRect();
            return 10 * (line.left + 1 - track.left) / track.width - at"""
        assert browser.execute_script(where) == pytest.approx(0, abs=0.02)


def test_what_is_played_is_the_recording_at_that_time(browser, pages):
    """Decoded by the browser, and compared by cross-correlation."""
    shown(browser, pages / "all.html", 2)
    script = """const done = arguments[0], sound = bytes(data("recording-1").sound).buffer;
        new OfflineAudioContext(1, 1, 22050).decodeAudioData(sound).then(
            found => done([found.duration, Array.from(found.getChannelData(0).subarray(0, 66150))]))"""
    duration, samples = browser.execute_async_script(script)
    due = clip(2)[: len(samples)]
    power = np.fft.rfft(samples, 1 << 18) * np.fft.rfft(due, 1 << 18).conj()
    lag = (np.argmax(np.fft.irfft(power)) + (1 << 17)) % (1 << 18) - (1 << 17)
    assert abs(lag) / SAMPLE_RATE < 0.05 and abs(duration - 5) < 0.1
    assert np.corrcoef(np.roll(samples, -lag), due)[0, 1] > 0.9
    assert browser.execute_script("return player.duration") == pytest.approx(5, abs=0.1)


def test_the_slider_moves_the_threshold_of_all_classes(browser, pages, checkpoint, lbl_map):
    shown(browser, pages / "all.html", 1)
    tagger = Tagger(checkpoint, lbl_map, *WINDOWS)
    tagged = tagger(pages / NAMES[0])
    before, said = events_of(browser), browser.find_element(By.ID, "count").text
    slider, reset = (browser.find_element(By.ID, name) for name in ("threshold", "reset"))
    lanes = set(browser.execute_script("return recording.lanes.map(lane => lane.label)"))
    assert not reset.is_enabled() and browser.find_element(By.ID, "limit").text == "each class's own"
    for key, threshold in ((Keys.HOME, 0.0), (Keys.ARROW_RIGHT, 0.01), (Keys.PAGE_UP, 0.11), (Keys.END, 1.0)):
        slider.send_keys(key)
        assert float(slider.get_attribute("value")) == threshold
        found = found_in(tagged, decisions_of(tagger, threshold))
        due = [(tagger.classes[event.label], event.onset, event.offset, event.confidence) for event in found]
        assert events_of(browser) == sorted(event for event in due if event[0] in lanes)
        assert browser.find_element(By.ID, "limit").text == f"{threshold:.2f} for all"
    assert events_of(browser) == [] and browser.find_element(By.ID, "count").text.startswith("0 events of 0 classes")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".lane.empty")) == len(lanes)
    reset.click()
    assert events_of(browser) == before and browser.find_element(By.ID, "count").text == said


def test_the_keyboard_does_all(browser, pages):
    shown(browser, pages / "all.html", 1)
    pause_at(browser, 3)
    for keys, seconds in (
        ((Keys.ARROW_RIGHT,), 4),
        ((Keys.SHIFT, Keys.ARROW_RIGHT), 9),
        ((Keys.ARROW_LEFT,), 8),
        ((Keys.SHIFT, Keys.ARROW_LEFT), 3),
    ):
        press(browser, *keys)
        assert playing(browser) == [pytest.approx(seconds), False]
    press(browser, " ")
    WebDriverWait(browser, 10).until(lambda _: playing(browser)[0] > 3.1)
    press(browser, " ")
    assert not playing(browser)[1]

    def focused():
        element = browser.switch_to.active_element
        lane = browser.execute_script("return arguments[0].closest('.lane')", element)
        return element.get_attribute("aria-label"), lane

    press(browser, Keys.ARROW_DOWN)
    label, lane = focused()
    press(browser, Keys.ARROW_DOWN)
    assert focused()[1] != lane and browser.execute_script("return document.activeElement.matches(':focus-visible')")
    press(browser, Keys.ARROW_UP)
    assert focused()[1] == lane
    label = focused()[0]
    onset = float(re.search(r", ([\d.]+) to [\d.]+ s, score 0\.\d\d$", label)[1])
    press(browser, " ")  # which does not press the box
    WebDriverWait(browser, 10).until(lambda _: playing(browser)[1])
    pause_at(browser, 9.5)
    note_seeking(browser)
    press(browser, Keys.ENTER)
    assert place_sought(browser) == pytest.approx(onset, abs=0.01) and playing(browser)[1]
    before = events_of(browser)
    press(browser, "+")
    assert browser.find_element(By.ID, "limit").text == "0.51 for all" and events_of(browser) != before
    press(browser, "--")
    assert browser.find_element(By.ID, "limit").text == "0.49 for all"
    press(browser, "0")
    assert events_of(browser) == before


def test_markup_in_names_stays_text(browser, pages):
    for name, number in (("all", None), ("all", 1), ("all", 2), ("one", 0)):
        shown(browser, pages / f"{name}.html", number)
        script = "return [...document.querySelectorAll('b, img')].map(each => each.id)"
        assert browser.execute_script(script) == ["picture"]
        if number is not None:
            path = str(pages / NAMES[max(number, 1) - 1])
            assert browser.find_element(By.ID, "name").text == path == browser.title
    shown(browser, pages / "all.html", 1)
    assert MARKUP in browser.find_element(By.ID, "lanes").get_property("textContent")
    titles = [box.get_attribute("title") for box in browser.find_elements(By.CLASS_NAME, "event")]
    assert any(title.startswith(f"{MARKUP}, ") for title in titles)


def test_several_recordings_get_an_index(browser, pages):
    shown(browser, pages / "all.html")
    assert browser.title == "3 recordings" and not browser.find_element(By.ID, "one").is_displayed()
    rows = browser.find_elements(By.CSS_SELECTOR, "#table tr")
    assert [row.find_element(By.TAG_NAME, "a").text for row in rows] == [str(pages / name) for name in NAMES]
    assert [row.find_element(By.CLASS_NAME, "number").text for row in rows] == ["10.00 s", "5.00 s", "2.50 s"]
    assert all(re.fullmatch(r"(.+ \d\.\d\d(, |$)){3}", row.text.splitlines()[-1]) for row in rows)

    def titled(end):
        WebDriverWait(browser, 10).until(lambda _: browser.title.endswith(end))

    rows[1].find_element(By.TAG_NAME, "a").click()
    titled(NAMES[1])
    assert not browser.find_element(By.ID, "all").is_displayed()
    browser.find_element(By.ID, "next").click()
    titled(NAMES[2])
    assert not browser.find_element(By.ID, "next").is_displayed()
    browser.back()
    titled(NAMES[1])
    browser.find_element(By.LINK_TEXT, "All recordings").click()
    titled("3 recordings")
    assert browser.find_element(By.ID, "all").is_displayed()


def test_one_recording_is_shown_at_once_and_can_be_zoomed(browser, pages):
    shown(browser, pages / "one.html", 0)
    assert not browser.find_element(By.ID, "back").is_displayed()
    width = browser.find_element(By.ID, "picture").size["width"]
    assert [tick.text for tick in browser.find_elements(By.CSS_SELECTOR, "#frequencies span")][:2] == ["0 Hz", "2 kHz"]
    more, less = (browser.find_element(By.ID, name) for name in ("more", "less"))
    more.click()
    assert browser.find_element(By.ID, "picture").size["width"] == pytest.approx(2 * width, abs=2)
    assert not more.is_enabled() and less.is_enabled()  # 10 s: 5 s can be seen
    less.click()
    assert browser.find_element(By.ID, "picture").size["width"] == width


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window(browser, pages, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for number in (None, 1):
        shown(browser, pages / "all.html", number)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_page_that_is_full_has_no_more_sound(browser, folder, lbl_map, monkeypatch, caplog):
    monkeypatch.setattr(page, "MOST_SOUND", 8.0)
    tagger = Tagger(CKPT, lbl_map, *WINDOWS)
    with page.page(folder / "full.html", tagger, 2) as add:
        for name in NAMES:
            add(tagger(folder / name))
    assert f"{NAMES[0]}: is in {folder / 'full.html'} without its sound" in caplog.text
    assert len(caplog.records) == 1
    shown(browser, folder / "full.html")
    browser.get((folder / "full.html").as_uri() + "#1")
    assert browser.find_element(By.ID, "silent").is_displayed() and events_of(browser)
    assert not browser.find_element(By.ID, "player").is_displayed()
    browser.find_element(By.ID, "picture").click()
    assert browser.execute_script("return at") == pytest.approx(5, abs=0.1)
    shown(browser, folder / "full.html", 2)
    assert browser.find_element(By.ID, "player").is_displayed()


# ---- without a browser ----


def data_of(path):
    """The blocks of data in a page."""
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', path.read_text("utf-8"))
    return {name: json.loads(text) for name, text in found}


def test_a_page_holds_what_is_in_reach_and_the_strongest(pages, checkpoint, lbl_map):
    tagger = Tagger(checkpoint, lbl_map, *WINDOWS)
    limits, blocks = tagger.event_decisions.limits, data_of(pages / "all.html")
    assert list(blocks) == ["recording-0", "recording-1", "recording-2", "index"]
    assert len(blocks["recording-0"]["lanes"]) + blocks["recording-0"]["others"] == 18
    found = {tagger.classes[event.label] for event in found_in(tagger(pages / NAMES[0]), decisions_of(tagger))}
    assert found <= {lane["label"] for lane in blocks["recording-0"]["lanes"]}
    for lane in blocks["recording-0"]["lanes"]:
        limit = limits[tagger.classes.index(lane["label"])]
        assert lane["threshold"] == (None if np.isinf(limit) else limit)
    assert base64.b64decode(blocks["recording-0"]["picture"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("rate, samples", [(8000, 1), (22050, 2205), (96000, 40000), (5000, 300_000)])
def test_sound_of_any_rate_and_length_becomes_mp3(tmp_path, rate, samples):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(samples), rate)
    for wanted, due in ((22050, 22050), (20000, 22050), (96000, 48000)):
        (tmp_path / "a.mp3").write_bytes(page.mp3_of(tmp_path / "a.wav", wanted))
        info = soundfile.info(tmp_path / "a.mp3")
        assert (info.samplerate, info.channels, info.format) == (due, 1, "MP3")
        assert info.duration == pytest.approx(samples / rate, abs=0.001)


def test_bad_input_gets_one_line_and_a_page_stays(folder, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")
    (tmp_path / "broken.wav").write_text("not audio")
    words = "predict.py", "--ckpt_path", CKPT, "--lbl_map", FIXTURES / "lbl_map.json", "--html"
    assert "is a folder" in error_line(run_script(*words, tmp_path, "--audio", folder / NAMES[1]))
    line = error_line(run_script(*words, folder / NAMES[1], "--audio", folder / NAMES[1]))
    assert "is to be written, and the same file" in line
    assert "no such file" in error_line(run_script(*words, path, "--audio", tmp_path / "none.wav"))
    assert path.read_text() == "before" and sorted(tmp_path.iterdir()) == [tmp_path / "broken.wav", path]
    result = run_script(*words, path, "--audio", tmp_path / "broken.wav", folder / NAMES[1])
    assert "1 of 2 recordings could not be read" in error_line(result) and "broken.wav: is not audio" in result.stderr
    assert [each["name"] for each in data_of(path)["index"]["recordings"]] == [str(folder / NAMES[1])]


def test_a_name_that_is_no_utf8_is_written(tmp_path, lbl_map):
    path = Path(str(tmp_path / "odd\udcff.wav"))
    with open(path, "wb") as stream:
        soundfile.write(stream, clip()[:30000], SAMPLE_RATE, format="WAV")
    words = "predict.py", "--ckpt_path", CKPT, "--lbl_map", lbl_map, "--audio", path
    run_script(*words, "--html", tmp_path / "a.html", check=0)
    assert data_of(tmp_path / "a.html")["index"]["recordings"][0]["name"] == str(path)
