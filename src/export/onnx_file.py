"""A checkpoint as an ONNX file: written only if ONNX Runtime computes the scores of the tagger with it."""

import io
import json
import logging
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from src.errors import UserError
from src.export.waveform_network import BUFFERS, WaveformNetwork
from src.models.checkpoint import read_checkpoint
from src.tagging.tagger import Tagger
from src.utils.files import write_whole

OPSET = 17  # of ONNX 1.12, which runtimes of 2022 read
TOLERANCE = 1e-4  # of a probability
LENGTHS = (0.7, 1.5)  # s of the golden clips, besides the shortest ones
MOST_COLUMNS = 64  # that a network may need at least
LARGEST_INTEGER = 32766  # which one more still fits

Bits = Literal[32, 16]


def export_onnx(checkpoint: str | Path, path: str | Path, bits: Bits = 32, lbl_map: str | Path | None = None) -> float:
    """Write a network with its features as an ONNX file. See docs/deploy.md.

    Args:
        checkpoint: a file.
        bits: of the weights. 16 stands for integers, with a scale for each output of a layer.

    Returns:
        The largest difference from the tagger's probabilities on the golden clips.

    Raises:
        UserError: the network cannot be exported, or differs by more than TOLERANCE. Nothing is written then.
    """
    import onnx

    tagger = Tagger(checkpoint, lbl_map)
    model = onnx.load_from_string(traced(WaveformNetwork(tagger).eval(), path))
    if bits == 16:
        store_in_16_bits(model)
    shortest = shortest_clip(tagger)
    difference = largest_difference(model.SerializeToString(), tagger, shortest, path)
    content = read_checkpoint(checkpoint)
    metadata = {
        "classes": tagger.classes,
        "sample_rate": tagger.sample_rate,  # Hz
        "shortest": shortest,  # samples
        "frame_step": tagger.inputs.stride
        and tagger.inputs.step,  # samples from one frame of the second output to the next
        "decisions": content.decisions and content.decisions.as_dict(),
        "event_decisions": content.event_decisions and content.event_decisions.as_dict(),
        "features": asdict(tagger.features),
        "checkpoint": content.digest,
        "bits": bits,
        "largest_difference": difference,
    }
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    write_whole(path, model.SerializeToString())
    return difference


def traced(network: WaveformNetwork, path: str | Path) -> bytes:
    """An ONNX file of a network, with any number of clips of any length.

    PyTorch's older exporter traces the network: of a recurrent layer, the newer one takes no other number of clips than
    the example's, and it takes up to 30 times as long.

    Raises:
        UserError: an operation of the network has no form in ONNX.
    """
    example = torch.zeros(2, network.features.sample_rate)
    buffer: Any = io.BytesIO()
    names = ["probabilities", "frames"][: len(network(example))]
    axes = {"waveform": {0: "batch", 1: "samples"}, "probabilities": {0: "batch"}, "frames": {0: "batch", 1: "frame"}}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of what is constant in a trace
            torch.onnx.export(
                network,
                (example,),
                buffer,
                input_names=["waveform"],
                output_names=names,
                dynamic_axes=axes,
                opset_version=OPSET,
                do_constant_folding=False,  # ONNX Runtime does so when it opens the file, which stays smaller
                dynamo=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{path}: this network has no form in ONNX ({str(error).splitlines()[0]})") from None
    finally:
        exporter.setLevel(level)
    return buffer.getvalue()


def store_in_16_bits(model: Any) -> None:
    """Store the matrices and kernels of an ONNX model as integers, each output's with a scale of its own.

    Of the same size, 16-bit floats keep fewer bits of most weights, and miss TOLERANCE. ONNX Runtime makes 32-bit
    weights of them when it opens the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes = model.graph, []
    for tensor in [each for each in graph.initializer if each.data_type == TensorProto.FLOAT and len(each.dims) > 1]:
        if (name := tensor.name) in BUFFERS:
            continue
        weights = numpy_helper.to_array(tensor)
        scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / LARGEST_INTEGER
        # What layers take in is mostly positive. Rounding the sums lets an output's errors cancel out.
        wanted = (weights / np.where(scale, scale, 1)).reshape(len(weights), -1).cumsum(axis=1, dtype=np.float64)
        integers = np.diff(np.rint(wanted), axis=1, prepend=0).astype(np.int16).reshape(weights.shape)
        stored = numpy_helper.from_array(integers, f"{name}_16"), numpy_helper.from_array(scale, f"{name}_scale")
        graph.initializer.remove(tensor)
        graph.initializer.extend(stored)
        nodes.append(helper.make_node("Cast", [f"{name}_16"], [f"{name}_cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def shortest_clip(tagger: Tagger) -> int:
    """The samples that a clip must have at least: what is reflected at its ends, and what the network needs.

    Raises:
        UserError: the network needs more than MOST_COLUMNS columns.
    """
    features, columns = tagger.features, 1
    while columns <= MOST_COLUMNS:
        try:
            with torch.inference_mode():
                tagger.network(torch.zeros(1, 1, features.num_bins, columns))
            return max(features.n_fft // 2 + 1, features.hop_len * max(columns, tagger.inputs.stride or 1))
        except (RuntimeError, ValueError):  # a pooling of more columns than there are
            columns *= 2
    raise UserError(f"this network takes no spectrogram of {MOST_COLUMNS} columns, and is not exported")


def largest_difference(file: bytes, tagger: Tagger, shortest: int, path: str | Path) -> float:
    """How far ONNX Runtime's outputs are from the tagger's at most, on golden clips, together and alone.

    Raises:
        UserError: by more than TOLERANCE, or ONNX Runtime cannot run the file.
    """
    import onnxruntime

    largest, options = 0.0, onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for length in (shortest, *(round(seconds * tagger.sample_rate) for seconds in LENGTHS)):
            clips = golden_clips(length, tagger.sample_rate)
            inputs = replace(tagger.inputs, window=length)
            batch = session.run(None, {"waveform": np.stack(list(clips.values()))})
            for number, (name, clip) in enumerate(clips.items()):
                probabilities, _, frames = tagger.outputs(inputs.seen([tagger.features(clip)]))
                alone = session.run(None, {"waveform": clip[None]})
                for found in (alone, [output[number : number + 1] for output in batch]):
                    for one, other in zip(found, (probabilities, frames)):
                        furthest = np.abs(one - other).max() if one.shape == other.shape else np.nan
                        if not furthest <= TOLERANCE:
                            raise UserError(
                                f"{path}: is not written: of {name}, {length} samples, its outputs are {furthest:.2g} "
                                f"from the checkpoint's, and {TOLERANCE:g} at most are allowed. With --bits 32 they "
                                "are nearer. A network without training, or for one length of clips, may differ even so"
                            )
                        largest = max(largest, float(furthest))
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime's have no class in common
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: is not written: ONNX Runtime cannot run this network ({reason})") from None
    return largest


def golden_clips(length: int, sample_rate: int) -> dict[str, np.ndarray]:
    """Name -> (N,) float32 samples in [-1, 1), all but the noise as 16 bits have them."""
    rng, t = np.random.RandomState(0), np.arange(length) / sample_rate
    noise, full = rng.uniform(-1, 1, length), 1 - 2.0**-15
    notes = sum(np.sin(2 * np.pi * hertz * t) * np.exp(-4 * (t % 0.4)) for hertz in (220, 440, 1320, 3960)) / 5
    bursts = rng.standard_normal(length) * 0.2 * np.exp(-20 * (t % 0.3)) + 0.001 * noise
    sounds = {
        "silence": np.zeros(length),
        "a constant at full scale": np.full(length, full),
        "a square wave at full scale": np.where(np.sin(2 * np.pi * 440 * t) < 0, -1, full),
        "white noise": noise,
        "notes": notes + 0.002 * noise,
        "bursts of noise": bursts.clip(-1, full),
    }
    return {
        name: (sound if name == "white noise" else np.rint(sound * 2**15) / 2**15).astype(np.float32)
        for name, sound in sounds.items()
    }
