"""Make a checkpoint a file to deploy: ONNX with the features inside, or safetensors with everything that it needs."""

from pathlib import Path

import _repository

from src import cli
from src.errors import UserError


def build_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--ckpt_path", required=True, help=cli.ONE_CHECKPOINT)
    add("--lbl_map", help=cli.LABEL_MAP)
    add("--onnx", metavar="FILE.onnx", help="file to write: waveform in, probabilities out")
    add("--bits", type=int, choices=(32, 16), default=32, help="of the weights in the ONNX file")
    add("--safetensors", metavar="FILE.safetensors", help="file to write: weights, and the rest as JSON")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    from src.utils.files import require_writable

    outputs = {".onnx": arguments.onnx, ".safetensors": arguments.safetensors}
    if not any(outputs.values()):
        raise UserError("there is nothing to write. Give --onnx FILE.onnx, --safetensors FILE.safetensors, or both")
    for suffix, output in outputs.items():
        if output and Path(output).suffix.lower() in outputs.keys() - {suffix}:
            raise UserError(f"--{suffix[1:]} {output}: the name ends in {Path(output).suffix}. Did you mean {suffix}?")
    from src.models.checkpoint import export_bundle, read_checkpoint, require_golden
    from src.runs.folder import checkpoint_at

    path = checkpoint_at(arguments.ckpt_path)
    require_writable(*outputs.values(), inputs=[path, arguments.lbl_map])
    checkpoint = read_checkpoint(path)
    require_golden(checkpoint)
    if arguments.onnx:
        from src.export.onnx_file import export_onnx

        difference = export_onnx(path, arguments.onnx, arguments.bits, arguments.lbl_map)
        size = Path(arguments.onnx).stat().st_size / 1e6
        far = f"its probabilities are at most {difference:.1e} from the checkpoint's"
        print(f"{arguments.onnx}: {size:.1f} MB, weights of {arguments.bits} bits. On golden clips, {far}")
    if arguments.safetensors:
        export_bundle(checkpoint, arguments.safetensors, arguments.lbl_map)
        print(f"{arguments.safetensors}: {Path(arguments.safetensors).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run(main)
