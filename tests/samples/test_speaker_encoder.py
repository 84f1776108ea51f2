"""The speaker-encoder sample: features, scoring and splits; with the fetched data, its error rate too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import TaskError, UsageError
from compressor.task.loading import load
from tests.samples.fetching import check_missing

FOLDER = Path(__file__).parents[2] / "samples" / "speaker_encoder"
sys.path.insert(0, str(FOLDER))

import fetch  # noqa: E402
import mel  # noqa: E402
import verification  # noqa: E402
import voices  # noqa: E402

needs_data = pytest.mark.skipif(
    not (voices.CACHE / voices.FEATURES).is_file(), reason="run samples/speaker_encoder/fetch.py first"
)
ORIGINAL_EER = 0.0896


def tone(hz, rate_hz, count, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(count) / rate_hz)


# --- mel features ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hz", "mels"), [(0.0, 0.0), (200 / 3, 1.0), (1000.0, 15.0), (6400.0, 42.0)])
def test_slaneys_mel_scale_has_15_mels_up_to_1_khz_and_27_more_up_to_6_4_khz(hz, mels):
    assert mel.hz_to_mel(np.array(hz)) == pytest.approx(mels)
    assert mel.mel_to_hz(np.array(mels)) == pytest.approx(hz)


def test_every_triangle_of_the_filterbank_has_area_one_in_hz():
    fine = mel.filterbank(fft_samples=160_000)  # bins 0.1 Hz apart
    assert fine.shape == (40, 80_001)
    assert np.allclose(fine.sum(axis=1) * 0.1, 1.0, atol=1e-4)
    assert np.all(mel.filterbank() >= 0.0)


def test_one_frame_equals_the_sum_over_the_definition_of_the_transform():
    samples = np.random.default_rng(0).normal(size=1601)
    t = 5  # centred on sample 800, so away from both ends
    frame = samples[600:1000] * np.hanning(401)[:400]
    bins, n = np.arange(201)[:, None], np.arange(400)[None]
    power = np.abs((frame * np.exp(-2j * np.pi * bins * n / 400)).sum(axis=1)) ** 2
    assert np.allclose(mel.mel_power(samples)[t], mel.filterbank() @ power, rtol=1e-5)


@pytest.mark.parametrize(("count", "frames"), [(0, 1), (159, 1), (160, 2), (1601, 11)])
def test_there_is_a_frame_for_every_hop_and_one_more(count, frames):
    assert mel.mel_power(np.zeros(count)).shape == (frames, 40)


def test_tone_is_the_loudest_in_the_band_around_it():
    spectrogram = mel.mel_power(tone(1000, 16_000, 16_000))
    centres = mel.mel_to_hz(np.linspace(0, mel.hz_to_mel(np.array(8000.0)), 42))[1:-1]
    assert int(spectrogram[50].argmax()) == int(np.abs(centres - 1000).argmin())


def test_resampling_a_tone_gives_the_tone_at_the_new_rate():
    assert np.allclose(mel.resample(tone(440, 8000, 8000), 8000), tone(440, 16_000, 16_000), atol=1e-9)


def test_a_wrong_rate_plays_the_tone_faster():
    assert np.allclose(mel.resample(tone(400, 16_000, 16_000), 20_000), tone(500, 16_000, 12_800), atol=1e-9)


def test_loudness_is_set_to_30_db_below_full_scale_and_silence_stays():
    assert np.sqrt(np.mean(mel.set_loudness(tone(300, 16_000, 1600)) ** 2)) == pytest.approx(10**-1.5)
    assert not mel.set_loudness(np.zeros(7)).any()


def test_frames_more_than_30_db_under_the_loudest_are_dropped():
    spectrogram = np.outer([1.0, 1.1e-3, 0.9e-3, 0.5], np.ones(40)).astype(np.float32)
    assert np.array_equal(mel.drop_pauses(spectrogram), spectrogram[[0, 1, 3]])
    assert mel.drop_pauses(spectrogram[:0]).shape == (0, 40)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (159, 0), (160, 1), (319, 1), (320, 2)])
def test_windows_follow_each_other_and_a_shorter_rest_is_dropped(count, expected):
    frames = np.arange(count * 40, dtype=np.float32).reshape(count, 40)
    windows = mel.windows(frames)
    assert windows.shape == (expected, 160, 40)
    assert np.array_equal(windows.reshape(-1, 40), frames[: expected * 160])


# --- equal error rate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("same", "different", "rate"),
    [
        ([0.8, 0.9], [0.1, 0.2, 0.3], 0.0),
        ([0.1, 0.2], [0.8, 0.9], 1.0),
        ([0.5], [0.5], 0.5),
        ([0.2, 0.6, 0.7, 0.8], [0.1, 0.3, 0.4, 0.65], 0.25),
        # refused 0 -> 1/2 and accepted 1/3 stays between the thresholds 0.4 and 0.6: they meet at 1/3
        ([0.4, 0.8], [0.1, 0.2, 0.5], 1 / 3),
    ],
)
def test_equal_error_rate_of_hand_made_cases(same, different, rate):
    assert verification.equal_error_rate(torch.tensor(same), torch.tensor(different)) == pytest.approx(rate)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=13), st.lists(st.integers(0, 9), min_size=1, max_size=11))
def test_equal_error_rate_lies_between_the_two_errors_of_some_threshold(same, different):
    rate = verification.equal_error_rate(torch.tensor(same).float(), torch.tensor(different).float())
    errors = [
        (sum(s < t for s in same) / len(same), sum(d >= t for d in different) / len(different)) for t in range(11)
    ]
    assert min(max(pair) for pair in errors) + 1e-9 >= rate >= max(min(pair) for pair in errors) - 1e-9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=13), st.lists(st.integers(0, 9), min_size=1, max_size=11))
def test_equal_error_rate_depends_on_the_order_of_the_scores_alone(same, different):
    one, two = torch.tensor(same).double(), torch.tensor(different).double()
    rate = verification.equal_error_rate(one, two)
    assert verification.equal_error_rate(one.exp() - 3, two.exp() - 3) == pytest.approx(rate)


@pytest.mark.parametrize(("same", "different"), [([], [0.1]), ([0.1], []), ([float("nan")], [0.1])])
def test_equal_error_rate_refuses_missing_and_nan_scores(same, different):
    with pytest.raises(ValueError, match="scores of both kinds, none of them NaN"):
        verification.equal_error_rate(torch.tensor(same), torch.tensor(different))


def test_trials_are_every_pair_once_without_pairs_of_one_speakers_two_voices():
    embeddings = torch.eye(5)
    embeddings[1] = embeddings[0]
    same, different = verification.trials(
        embeddings, voices=torch.tensor([0, 0, 1, 2, 2]), speakers=torch.tensor([0, 0, 0, 1, 1])
    )
    assert sorted(same.tolist()) == [0.0, 1.0]  # windows 0-1 and 3-4
    assert len(different) == 6  # windows 0, 1 and 2 with 3 and 4


# --- splits ----------------------------------------------------------------------------------------------------------


def test_no_voice_has_two_roles():
    groups = (voices.SCORED, voices.VALIDATION, voices.HEARD)
    roles = ["scored", "validation", "heard"]
    assert [{voice.role for voice in group} for group in groups] == [{role} for role in roles]
    for attribute in ("name", "speaker"):
        sets = [{getattr(voice, attribute) for voice in group} for group in groups]
        assert len(set.union(*sets)) == sum(map(len, sets))
    places = [(voice.package, voice.folder) for voice in voices.VOICES]
    assert len(set(places)) == len(places)


def test_scored_voices_are_four_and_every_package_has_a_version():
    assert [voice.name for voice in voices.SCORED] == ["en", "es", "fr", "it"]
    assert {voice.package for voice in voices.VOICES} == set(voices.PACKAGES)


def noise(seconds, seed, rate_hz=8000):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(rate_hz * seconds)).clip(-5, 5)


def write(path, samples, rate_hz=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)


def test_scored_recordings_give_one_window_each_and_short_ones_none(tmp_path):
    for index, seconds in enumerate((1.5, 1.7, 5.0)):
        write(tmp_path / f"{index}.wav", noise(seconds, seed=index))
    assert fetch.first_windows(fetch.recordings(tmp_path)).shape == (2, 160, 40)


def test_heard_recordings_are_strung_together_at_three_speeds(tmp_path):
    for index in range(7):
        write(tmp_path / f"{index}.wav", noise(0.9, seed=index))
    # 6.3 s, 7.4 s at speed 0.85 and 5.5 s at 1.15, each sound one frame longer than its duration
    assert fetch.heard_windows(fetch.recordings(tmp_path)).shape == (3 + 4 + 3, 160, 40)


def test_no_heard_voice_has_more_windows_than_the_cap(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "HEARD_WINDOWS", 2)
    write(tmp_path / "long.wav", noise(9.0, seed=1))
    assert len(fetch.heard_windows(fetch.recordings(tmp_path))) == 2 * len(fetch.SPEEDS)


def test_silence_links_and_other_files_are_no_recordings(tmp_path):
    write(tmp_path / "silence" / "1.wav", noise(2.0, seed=1))
    write(tmp_path / "b" / "1.wav", noise(2.0, seed=1))
    (tmp_path / "a.wav").symlink_to(tmp_path / "b" / "1.wav")
    (tmp_path / "LEEME").write_text("text")
    assert fetch.recordings(tmp_path) == [tmp_path / "b" / "1.wav"]


def test_features_are_not_extracted_again(tmp_path):
    target = tmp_path / "windows.npz"
    target.write_bytes(b"there already")
    fetch.write_features({}, target)
    assert target.read_bytes() == b"there already"


def test_any_recording_is_read_as_mono_at_the_telephones_rate(tmp_path):
    low = tone(440, 44_100, 44_100)
    write(tmp_path / "a.wav", np.stack([low + tone(6000, 44_100, 44_100), low], axis=1), rate_hz=44_100)
    assert np.allclose(fetch.read(tmp_path / "a.wav"), tone(440, 8000, 8000), atol=1e-3)


def test_headerless_gsm_recordings_are_read(tmp_path):
    sound = tone(440, 8000, 1600)
    soundfile.write(tmp_path / "a.gsm", sound, 8000, format="RAW", subtype="GSM610")
    assert np.corrcoef(fetch.read(tmp_path / "a.gsm")[:1600], sound)[0, 1] > 0.95


# --- fetching: what can go wrong -------------------------------------------------------------------------------------


def test_broken_recording_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(UsageError, match=r"a\.wav cannot be read"):
        fetch.read(tmp_path / "a.wav")


def test_task_without_fetched_data_says_how_to_fetch_it(monkeypatch, tmp_path):
    check_missing(
        monkeypatch, voices, tmp_path, "speaker_encoder", load(str(FOLDER / "task.py")).model, "pretrained.pt"
    )


# --- the model -------------------------------------------------------------------------------------------------------


def test_checkpoint_with_optimizer_and_loss_parameters_loads_and_embeddings_have_length_one(monkeypatch, tmp_path):
    monkeypatch.setattr(voices, "CACHE", tmp_path)
    task = load(str(FOLDER / "task.py"))
    encoder = sys.modules[type(task.task).__module__].Encoder()
    extra = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    checkpoint = {"step": 7, "model_state": encoder.state_dict() | extra, "optimizer_state": {"state": {}}}
    torch.save(checkpoint, tmp_path / voices.WEIGHTS)
    with torch.no_grad():
        embeddings = task.task.model().eval()(torch.rand(3, 23, 40, generator=torch.Generator().manual_seed(1)))
    assert embeddings.shape == (3, 256)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3))


def test_retraining_on_labels_that_are_not_there_is_refused():
    with pytest.raises(TaskError, match="no labels"):
        load(str(FOLDER / "task.py")).loss(torch.zeros(2, 256), None)


@needs_data
def test_original_model_has_the_equal_error_rate_of_the_readme():
    task = load(str(FOLDER / "task.py"))
    with torch.no_grad():
        evaluation = task.evaluate(task.model())
    assert evaluation.value == pytest.approx(ORIGINAL_EER, abs=0.002)


@needs_data
def test_batches_hold_only_windows_of_heard_voices():
    task = load(str(FOLDER / "task.py"))
    data = voices.load_features()
    (windows,), target = next(iter(task.batches(torch.Generator().manual_seed(0))))
    heard = np.concatenate([data[voice.name] for voice in voices.HEARD])
    assert target is None
    assert windows.shape == (32, 160, 40)
    assert all((heard == window.numpy()).all(axis=(1, 2)).any() for window in windows[:3])
