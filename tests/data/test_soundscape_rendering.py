"""Soundscapes of training against Scaper's: the same draws, and of one specification the same sound."""

import warnings
from collections import defaultdict

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile
from conftest import GOLDEN, SAMPLE_RATE

from src.data.audio.files import as_int16
from src.data.soundscapes import rendering
from src.data.soundscapes.distribution import BACKGROUND_TIME, EVENT, REF_DB, Choices, Event, Specification
from src.data.soundscapes.loudness import integrated_loudness
from src.data.soundscapes.packed import packed
from src.data.soundscapes.rendering import background, foreground, render
from src.data.soundscapes.stretching import stretched
from src.preparation.soundscapes import import_scaper

EVENTS = (0.5, 1.2, 2.0, 6.5)  # s
BACKGROUNDS = (0.9, 2.0, 7.0)
FOLDER = str(GOLDEN)  # of sounds, which Scaper wants to see, and where it does not look

pytestmark = pytest.mark.processes  # pysox looks for SoX as it is imported


def texture(seconds, seed):
    """(N,) samples that change all the time: bursts of coloured noise, and a gliding tone."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = scipy.signal.lfilter([1], [1, -rng.uniform(0.3, 0.95)], rng.standard_normal(len(t)))
    swell = 1 + np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6))
    tone = np.sin(2 * np.pi * rng.uniform(200, 3000) * t * (1 + 0.1 * t))
    sound = swell * (noise / noise.std() + rng.uniform(0, 3) * tone)
    return 10 ** rng.uniform(-2, -0.3) * sound / np.abs(sound).max()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """(files, PackedSounds) of events and of backgrounds."""
    folder = tmp_path_factory.mktemp("sounds")
    found = []
    for name, lengths in (("events", EVENTS), ("backgrounds", BACKGROUNDS)):
        (folder / name / "Drum").mkdir(parents=True)
        files = [str(folder / name / "Drum" / f"{number}.wav") for number in range(len(lengths))]
        for number, (file, seconds) in enumerate(zip(files, lengths)):
            soundfile.write(file, texture(seconds, len(lengths) * 10 + number), SAMPLE_RATE, subtype="PCM_16")
        found.append((files, packed(folder / name, [(file, "Drum") for file in files], SAMPLE_RATE)))
    return found


def by_scaper(sounds, specification, duration, fade=0.01):
    """What Scaper makes of a specification: mixed samples, and the values and the sound of the background, then of each
    event in its order."""
    (events, _), (backgrounds, _) = sounds
    scaper = import_scaper().Scaper(duration, FOLDER, FOLDER, random_state=0)
    scaper.fg_labels = scaper.bg_labels = ["Drum"]
    scaper.sr, scaper.ref_db = SAMPLE_RATE, REF_DB
    scaper.fade_in_len = scaper.fade_out_len = fade
    file = ("const", backgrounds[specification.background])
    scaper.add_background(("const", "Drum"), file, ("const", specification.background_time))
    for one in specification.events:
        values = {
            "source_time": ("const", one.source_time),
            "event_time": ("const", one.onset),
            "event_duration": ("const", one.duration),
            "snr": ("const", one.snr),
            "pitch_shift": None,
            "time_stretch": None if one.time_stretch == 1 else ("const", one.time_stretch),
        }
        scaper.add_event(("const", "Drum"), ("const", events[one.source]), **values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audio, jam, _, isolated = scaper.generate(fix_clipping=True, disable_instantiation_warnings=True)
    # JAMS sorts them by time.
    files = [backgrounds[specification.background], *(events[one.source] for one in specification.events)]
    snrs = [0, *(one.snr for one in specification.events)]
    found = [(each.value, sound[:, 0]) for each, sound in zip(jam.annotations[0].data, isolated, strict=True)]
    found.sort(key=lambda one: list(zip(files, snrs)).index((one[0]["source_file"], one[0]["snr"])))
    return audio[:, 0], [value for value, _ in found], [sound for _, sound in found]


def choices(duration, max_events=3):
    even = np.ones(len(EVENTS)), np.array(BACKGROUNDS), np.ones(len(BACKGROUNDS))
    return Choices(np.array(EVENTS), *even, duration, max_events)


def without_stretch(specification, duration):
    events = []
    for one in specification.events:
        seconds = min(one.duration, duration)
        events.append(Event(one.source, one.source_time, seconds, 1, one.snr, min(one.onset, duration - seconds)))
    return Specification(specification.background, specification.background_time, tuple(events))


@pytest.mark.parametrize("duration", [1.0, 2.0, 5.0])
def test_without_time_stretch_every_sample_is_scapers(sounds, duration):
    """Within 1e-5 of full scale, a third of a step of 16 bits: we count in 32 bits, and Scaper in 64."""
    (_, events), (_, backgrounds) = sounds
    clipped = 0
    for number in range(12):
        specification = without_stretch(choices(duration).draw(np.random.default_rng(number)), duration)
        ours = render(specification, events, backgrounds, SAMPLE_RATE, duration)
        theirs, _, isolated = by_scaper(sounds, specification, duration)
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-5
        assert np.abs(as_int16(ours).astype(int) - as_int16(theirs)).max() <= 1
        quiet = background(specification, backgrounds, SAMPLE_RATE, len(theirs))
        clipped += np.abs(isolated[0]).max() < 0.99 * np.abs(quiet).max()  # all is made softer
    assert clipped or duration < 2  # some of them would clip


def test_with_time_stretch_level_and_spectrum_are_scapers(sounds):
    """SoX stretches in segments of 35 ms, and we in those of 82 ms: samples differ, the sound does not."""
    (_, events), (_, backgrounds) = sounds
    for number in range(12):
        specification = choices(5.0).draw(np.random.default_rng(number))
        mixed, _, (their_background, *theirs) = by_scaper(sounds, specification, 5.0)
        quiet = background(specification, backgrounds, SAMPLE_RATE, len(mixed))
        softer = np.abs(their_background).max() / np.abs(quiet).max()  # all of it, where it would clip
        for event, their_event in zip(specification.events, theirs):
            ours = foreground(event, events, SAMPLE_RATE)
            their_event = their_event[int(SAMPLE_RATE * event.onset) :][: len(ours)] / softer
            assert len(their_event) >= len(ours) - 1
            level = integrated_loudness(their_event, SAMPLE_RATE)
            assert integrated_loudness(ours, SAMPLE_RATE) == pytest.approx(level, abs=0.1)
            assert np.abs(octaves(ours) - octaves(their_event)).max() < 1
        if softer > 0.9999:
            assert (
                np.abs(octaves(render(specification, events, backgrounds, SAMPLE_RATE, 5.0)) - octaves(mixed)).max() < 1
            )


def octaves(samples):
    """(6,) level in dB of the octaves from 180 Hz to 11 kHz, over the whole of a sound."""
    frequencies, power = scipy.signal.welch(samples, SAMPLE_RATE, nperseg=2048)
    edges = [np.searchsorted(frequencies, 175 * 2**number) for number in range(7)]
    return np.array([10 * np.log10(power[start:end].sum()) for start, end in zip(edges, edges[1:])])


def test_the_events_of_500_mixes_stand_out_as_scapers_do(sounds, monkeypatch):
    """Within 0.1 LU of Scaper's and of what is asked for, by Scaper's meter, where it sets them: before the fades."""
    monkeypatch.setattr(rendering, "FADE", 1.5 / SAMPLE_RATE)  # one sample
    (_, events), (_, backgrounds) = sounds
    for number in range(500):
        specification = choices(0.6, 1).draw(np.random.default_rng(number))
        _, _, (their_background, their_event) = by_scaper(sounds, specification, 0.6, fade=0)
        (event,) = specification.events
        start = int(SAMPLE_RATE * event.onset)
        our_background = background(specification, backgrounds, SAMPLE_RATE, len(their_background))
        our_event = foreground(event, events, SAMPLE_RATE)[: len(our_background) - start]
        softer = np.abs(their_background).max() / np.abs(our_background).max()  # all of it, where it would clip
        theirs = snr(their_event[start:][: len(our_event)] / softer, their_background / softer)
        assert snr(our_event, our_background) == pytest.approx(theirs, abs=0.1)
        assert theirs == pytest.approx(event.snr, abs=0.1)


def snr(event, quiet):
    from scaper.audio import get_integrated_lufs

    event, quiet = (get_integrated_lufs(sound[:, None].astype(float), SAMPLE_RATE) for sound in (event, quiet))
    return event - quiet


def test_what_is_drawn_fits_and_scaper_changes_nothing(sounds):
    for number in range(100):
        duration = (1.0, 2.0, 5.0)[number % 3]
        specification = choices(duration).draw(np.random.default_rng(number))
        _, (bottom, *values), _ = by_scaper(sounds, specification, duration)
        assert bottom["source_time"] == specification.background_time
        for value, one in zip(values, specification.events, strict=True):
            theirs = value["source_time"], value["event_duration"], value["time_stretch"], value["event_time"]
            assert theirs == pytest.approx((one.source_time, one.duration, one.time_stretch, one.onset))


@pytest.mark.parametrize("source", range(len(EVENTS)))
def test_the_distributions_are_scapers(sounds, source):
    """Two-sample Kolmogorov-Smirnov tests of 300 draws of each."""
    (events, _), (backgrounds, _) = sounds
    scaper = import_scaper().Scaper(5.0, FOLDER, FOLDER, random_state=1)
    scaper.fg_labels = scaper.bg_labels = ["Drum"]
    scaper.add_background(("const", "Drum"), ("const", backgrounds[2]), BACKGROUND_TIME)
    scaper.add_event(("const", "Drum"), ("const", events[source]), **EVENT)
    theirs, ours = defaultdict(list), defaultdict(list)
    one = Choices(np.array(EVENTS[source : source + 1]), np.ones(1), np.array(BACKGROUNDS[2:]), np.ones(1), 5.0, 1)
    for number in range(300):
        _, jam, _, _ = scaper.generate(no_audio=True, disable_instantiation_warnings=True)
        for value in (observation.value for observation in jam.annotations[0].data):
            for name in ("source_time", "event_duration", "time_stretch", "event_time", "snr"):
                if value["role"] == "foreground" or name == "source_time":
                    theirs[value["role"], name].append(value[name])
        specification = one.draw(np.random.default_rng(number))
        ours["background", "source_time"].append(specification.background_time)
        (event,) = specification.events
        values = event.source_time, event.duration, event.time_stretch, event.onset, event.snr
        for name, value in zip(("source_time", "event_duration", "time_stretch", "event_time", "snr"), values):
            ours["foreground", name].append(value)
    assert len(theirs) == len(ours) == 6
    for name in theirs:
        assert scipy.stats.ks_2samp(theirs[name], ours[name]).pvalue > 0.01, name


@pytest.mark.parametrize("pace", [0.952381, 0.9999, 1.05])
def test_a_sound_is_stretched_as_sox_does(pace):
    import soxbindings

    transformer = soxbindings.Transformer()
    transformer.set_output_format(rate=SAMPLE_RATE, channels=1)
    transformer.tempo(pace)
    for seconds in (0.012, 0.1, 1.0, 3.0):
        samples = as_int16(texture(seconds, 5)) * np.float32(2**-15)
        theirs = transformer.build_array(input_array=samples[:, None].astype(float), sample_rate_in=SAMPLE_RATE)[:, 0]
        ours = stretched(samples, 1 / pace, SAMPLE_RATE)
        assert len(ours) == len(theirs)
        assert np.abs(ours - theirs).max() < 1e-6


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_loudness_is_pyloudnorms_as_scaper_asks_for_it(rate):
    import_scaper()
    from scaper.audio import get_integrated_lufs

    rng = np.random.default_rng(0)
    for seconds in (0.02, 0.39, 0.5, 0.97, 3.33):
        for decay in (0.05, 1.0, 100.0):
            samples = rng.standard_normal(round(seconds * rate))
            samples *= 0.1 * np.exp(-np.arange(len(samples)) / decay / rate)
            expected = get_integrated_lufs(samples[:, None], rate)
            assert integrated_loudness(samples, rate) == pytest.approx(expected, abs=1e-6)
    assert integrated_loudness(np.zeros(rate), rate) == get_integrated_lufs(np.zeros((rate, 1)), rate) == -70
