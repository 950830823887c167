"""WAV to FLAC: names that a shell would trip over, files that break off."""

import subprocess

import soundfile
from conftest import SAMPLE_RATE, error_line, run_script
from small_sources import contents, noise


def test_wav_files_that_break_off_and_flac_files_that_do_are_not_taken_for_whole(tmp_path):
    src, tgt = tmp_path / "src", tmp_path / "tgt"
    src.mkdir()
    names = ["-a; 'b' \"c\".wav", "音 [1].wav", "c.wav"]
    for name in names:
        soundfile.write(src / name, noise(1, len(name)), SAMPLE_RATE)
    (src / "cut.wav").write_bytes((src / "c.wav").read_bytes()[:20001])
    (src / "piped.wav").write_bytes(
        subprocess.run(["sox", src / "c.wav", "-t", "wav", "-"], capture_output=True, check=True).stdout
    )  # its header does not know its length
    convert = ("scripts/wav2flac.py", "--src_dir", src, "--tgt_dir", tgt, "--num_workers", 2)
    result = run_script(*convert)
    assert "1 of the files" in error_line(result)
    assert "cut.wav: is truncated: it has 19957 of 44100 bytes" in result.stderr
    expected = contents(tgt)
    assert sorted(expected) == sorted([*(name.replace(".wav", ".flac") for name in names), "piped.flac"])
    assert expected["piped.flac"] == expected["c.flac"]
    (src / "cut.wav").unlink()
    (tgt / "c.flac").write_bytes(expected["c.flac"][:20])  # left by another program
    run_script(*convert, check=0)
    assert contents(tgt) == expected
