"""Copy a trained checkpoint into the package and record its hash.

    python scripts/publish.py RUN/compact.safetensors [--name compact] [--blend EARLIER.safetensors --share 0.7]

With ``--blend`` the published weights lie ``--share`` of the way from the earlier checkpoint to the first one.
``--same-descriptors`` says that they are those of the shipped weights so far, bit for bit, so that maps stay usable; it
is checked by the tensors that descriptors come from.
The file is read back through the checks every user's load goes through before it replaces the shipped one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path

import torch

from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.semantic_detector import SemanticKeypointDetector

WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "semkey" / "weights"


DETECTION = ("detail", "detector", "smoothing", "offset", "reliability", "covariance")
"""Parts of the network that descriptors do not come from."""


def check_descriptors(model: SemanticKeypointDetector, shipped: Path) -> None:
    """Refuse weights with other descriptors than the shipped ones."""
    earlier, own = load_checkpoint(shipped).state_dict(), model.state_dict()
    names = [name for name in sorted({*earlier, *own}) if not name.startswith(DETECTION)]
    changed = [n for n in names if n not in own or n not in earlier or not torch.equal(own[n], earlier[n])]
    if changed:
        raise SystemExit(f"{shipped.name}: the shipped weights have another '{changed[0]}'")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="compact")
    parser.add_argument("--summary", help="one line for `semkey info` (default: that of the shipped weights)")
    parser.add_argument("--blend", type=Path, help="earlier checkpoint of the same run of training")
    parser.add_argument("--share", type=float, default=0.7, help="of the first checkpoint in the blend, 0 to 1")
    parser.add_argument("--same-descriptors", action="store_true", help="maps made with the shipped ones stay usable")
    args = parser.parse_args()
    model = load_checkpoint(args.checkpoint)
    if args.checkpoint.stat().st_size > 5_000_000:
        raise SystemExit(f"{args.checkpoint}: larger than 5 MB, too large to ship")
    if args.blend:
        earlier = load_checkpoint(args.blend).state_dict()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(earlier[name].lerp(value, args.share))
    target = WEIGHTS / f"{args.name}.safetensors"
    manifest_file = WEIGHTS / "manifest.json"
    manifest = json.loads(manifest_file.read_text()) if manifest_file.exists() else {}
    summary = args.summary or manifest.get(args.name, {}).get("summary")
    if not summary:
        raise SystemExit(f"{args.name}: new weights need a --summary")
    earlier_hashes: list[str] = []
    if args.same_descriptors:
        check_descriptors(model, target)
        earlier_hashes = [*manifest[args.name].get("same_descriptors", []), manifest[args.name]["sha256"]]
    if args.blend:
        save_checkpoint(model, target)
    else:
        temporary = target.with_suffix(".tmp")
        shutil.copyfile(args.checkpoint, temporary)
        os.replace(temporary, target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    manifest[args.name] = {"summary": summary, "sha256": digest}
    if earlier_hashes:
        manifest[args.name]["same_descriptors"] = earlier_hashes
    temporary = manifest_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, manifest_file)
    print(f"{target.name}: {target.stat().st_size} bytes, SHA-256 {digest}")


if __name__ == "__main__":
    main()
