"""Results of `benchmarks/run.sh`: into benchmarks/results, without rows of pairs, and into the tables of the docs.

    python benchmarks/collect.py runs/benchmarks              # take over the results of a run
    python benchmarks/collect.py runs/new --only compact      # of these methods alone: the others stay as they are
    python benchmarks/collect.py                              # only write the tables anew

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->` in README.md and some pages of docs. One whose
results are not there stays as it is.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from semkey.evaluation.report.tables import overview
from semkey.evaluation.running.results import Evaluation, SetResult, plain
from semkey.files import atomic_write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / name for name in ("results.md", "slam.md", "lines.md")))
KINDS = ("planar", "redkitchen", "cabinet", "homographies", "reliability", "localisation", "speed")
KINDS += (
    "shift",
    "negatives",
    "icl",
    "rooms",
    "noise",
    "photos",
    "cabinet-odometry",
    "redkitchen-odometry",
    "slam",
    "lines",
)
NAMES = {
    "compact": "**semkey compact**",
    "nano": "**semkey nano**",
    "vit-tiny": "**semkey vit-tiny**",
    "orb": "ORB",
    "sift": "RootSIFT",
    "xfeat": "XFeat",
    "aliked-t16": "ALIKED-T16",
    "aliked-n16": "ALIKED-N16",
    "aliked-n16rot": "ALIKED-N16rot",
    "aliked-n32": "ALIKED-N32",
    "clidd-n64": "CLIDD-N64",
    "clidd-s64": "CLIDD-S64",
    "clidd-m64": "CLIDD-M64",
    "clidd-l64": "CLIDD-L64",
    "aliked-n16+lightglue": "ALIKED-N16 + LightGlue",
    "disk+lightglue": "DISK + LightGlue",
    "cv2-odometry": "cv2.Odometry",
}
SEQUENCES = {
    "rgbd_dataset_freiburg3_cabinet_subsampled": "fr3_cabinet",
    "redkitchen/seq-01": "redkitchen",
    "redkitchen/seq-01, every 2": "redkitchen, every 2nd frame",
    "kitti/07": "KITTI 07, mono",
}
HEADLINE = ("compact", "nano", "aliked-n16", "aliked-n16rot", "aliked-t16", "xfeat", "sift", "orb")


def collect(run: Path, only: Sequence[str] = (), folder: Path = RESULTS) -> None:
    """Copy the results of a run without their rows, which are large; of some methods alone, or of all."""
    for kind in KINDS:
        source = run / kind / "results.json"
        if source.exists():
            evaluation = Evaluation.read(source)
            results = {
                method: {name: replace(result, rows=(), curves={}) for name, result in sets.items()}
                for method, sets in evaluation.results.items()
            }
            target = folder / f"{kind}.json"
            found = replace(evaluation, results=results, curve_labels={})
            (joined(Evaluation.read(target), found, only) if only else found).write(target)
            atomic_write_text(target, without_folders(target.read_text(encoding="utf-8"), run))


def joined(stored: Evaluation, found: Evaluation, only: Sequence[str]) -> Evaluation:
    """What is stored, with some methods measured anew; when and how is kept beside the environment of the others.

    Raises:
        SystemExit: another protocol, or other sets: the numbers could not stand beside each other.
    """
    names = [name for name in found.results if name.split("+")[0] in only]
    options = {key: plain(found.options).get(key) for key in stored.options}  # there may be more of them by now
    if (stored.kind, plain(stored.options)) != (found.kind, options) or not names:
        raise SystemExit(f"{stored.kind}: not measured as what is stored: {stored.options}; {found.options}")
    counts = [{name: values.get("pairs") for name, values in one.sets.items()} for one in (stored, found)]
    if counts[0] != counts[1] or any(set(found.results[name]) != set(stored.sets) for name in names):
        raise SystemExit(f"{stored.kind}: other sets or numbers of pairs than what is stored: {counts[0]}; {counts[1]}")
    later = {name: {key: found.environment.get(key) for key in ("started", "command")} for name in names}
    known = {metric.name for metric in stored.metrics}
    return replace(
        stored,
        environment={**stored.environment, "later": {**stored.environment.get("later", {}), **later}},
        methods={**stored.methods, **{name: found.methods[name] for name in names}},
        results={**stored.results, **{name: found.results[name] for name in names}},
        metrics=[*stored.metrics, *(metric for metric in found.metrics if metric.name not in known)],
    )


def without_folders(text: str, run: Path) -> str:
    """A file's text with the folders of the machine that it was made on as benchmarks/run.sh calls them by default."""
    shared = Path(os.environ.get("SEMKEY_SHARED", ROOT.parent / "shared")).resolve()
    for folder, name in ((run.resolve(), "runs/benchmarks"), (shared, "../shared"), (ROOT, ".")):
        text = text.replace(f"{folder}/", f"{name}/")
    return text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures(result: SetResult | None, names: Sequence[str], *, scale: float = 100.0, digits: int = 1) -> str:
    """Metrics joined by slashes; a dash where there are none."""
    if result is None:
        return "-"
    return " / ".join(f"{scale * result.metrics[name]:.{digits}f}" for name in names)


class Tables:
    """The tables by name, made of the committed results."""

    def __init__(self, results: Path) -> None:
        self.evaluations = {
            kind: Evaluation.read(results / f"{kind}.json") for kind in KINDS if (results / f"{kind}.json").exists()
        }

    def make(self, name: str) -> str | None:
        """A table by its name, which begins with that of its results where it is of one kind; None without these."""
        kind = name.split("_", maxsplit=1)[0]
        return None if kind in KINDS and kind not in self.evaluations else getattr(self, name)()

    def result(self, kind: str, method: str, set_name: str) -> SetResult | None:
        """One method on the set whose name ends in ``set_name``."""
        sets = self.evaluations[kind].results.get(method, {})
        return next((result for name, result in sets.items() if name.endswith(set_name)), None)

    def methods(self, kind: str) -> list[str]:
        """Methods in the order of :data:`NAMES`."""
        return [name for name in NAMES if name in self.evaluations[kind].results]

    def accuracy(self) -> str:
        """AUC on all pairs."""
        header = ["method", "planar, 11 pairs, homography AUC@3/5/10 px", "200 homographies of photos, AUC@1/3/5 px"]
        header += [f"redkitchen, {gap} apart, pose AUC@5/10/20°" for gap in (10, 20, 40)]
        header += [f"fr3_cabinet, {gap} apart, pose AUC@5/10/20°" for gap in (1, 2, 3)]
        homography, pose = "auc_poselib@{}", [f"auc@{angle}" for angle in (5, 10, 20)]
        rows = []
        for method in self.methods("planar"):
            row = [NAMES[method]]
            row.append(figures(self.result("planar", method, "together"), [homography.format(t) for t in (3, 5, 10)]))
            row.append(figures(self.result("homographies", method, "val"), [homography.format(t) for t in (1, 3, 5)]))
            row += [figures(self.result("redkitchen", method, f"gap-{gap}"), pose) for gap in (10, 20, 40)]
            row += [figures(self.result("cabinet", method, f"gap-{gap}"), pose) for gap in (1, 2, 3)]
            rows.append(row)
        return table(header, rows)

    def glance(self) -> str:
        """A figure per question, and the time: what fits a screen."""
        header = ["method", "time / XFeat", "planar, AUC@5 px", "photos, AUC@3 px"]
        header += ["redkitchen, 20 apart, AUC@10°", "fr3_cabinet, 2 apart, AUC@10°"]
        homography, pose = "auc_poselib@{}", ["auc@10"]
        rows = []
        for method in (name for name in HEADLINE if name in self.evaluations["planar"].results):
            row = [
                NAMES[method],
                figures(self.result("speed", method, "640x480"), ["extract_ratio"], scale=1, digits=2),
            ]
            row.append(figures(self.result("planar", method, "together"), [homography.format(5)]))
            row.append(figures(self.result("homographies", method, "val"), [homography.format(3)]))
            row.append(figures(self.result("redkitchen", method, "gap-20"), pose))
            row.append(figures(self.result("cabinet", method, "gap-2"), pose))
            rows.append(row)
        return table(header, rows)

    def dates(self) -> str:
        """When each kind was measured, and with what."""
        rows = []
        for kind, evaluation in self.evaluations.items():
            known = evaluation.environment
            values = [str(known.get(name, "-")) for name in ("started", "semkey", "torch", "cpu", "threads")]
            rows.append([kind, values[0][:10], *values[1:]])
        return table(["results", "measured on", "semkey", "torch", "processor", "threads"], rows)

    def matching(self) -> str:
        """Keypoints and matches on the homographies."""
        columns = [
            ("repeatability @3 px, %", "repeatability@3", 100.0, 1),
            ("localisation error, px", "localisation_error", 1.0, 3),
            ("MMA @3 px, %", "mma@3", 100.0, 1),
            ("matching score @3 px, %", "matching_score@3", 100.0, 1),
            ("correct matches @1 px", "correct@1", 1.0, 0),
            ("correct matches @3 px", "correct@3", 1.0, 0),
        ]
        rows = [
            [NAMES[method]]
            + [
                figures(self.result("homographies", method, "val"), [name], scale=scale, digits=digits)
                for _, name, scale, digits in columns
            ]
            for method in self.methods("homographies")
        ]
        return table(["method", *(column[0] for column in columns)], rows)

    def inliers(self) -> str:
        """Matches per pair of the posed sequences."""
        header = ["method"] + [f"redkitchen, {gap} apart, inliers" for gap in (10, 20, 40)]
        header += [f"fr3_cabinet, {gap} apart, inliers / correct @4 px" for gap in (1, 2, 3)]
        rows = []
        for method in self.methods("redkitchen"):
            row = [NAMES[method]]
            for gap in (10, 20, 40):
                result = self.result("redkitchen", method, f"gap-{gap}")
                row.append(figures(result, ["inliers"], scale=1, digits=0))
            for gap in (1, 2, 3):
                result = self.result("cabinet", method, f"gap-{gap}")
                row.append(figures(result, ["inliers", "correct@4"], scale=1, digits=0))
            rows.append(row)
        return table(header, rows)

    def shift(self) -> str:
        """How keypoints follow a shifted photo."""
        columns = [("median_px", 1.0, "{:.2f}"), ("within", 100.0, "{:.0f}")]
        columns += [("worst_median_px", 1.0, "{:.2f}"), ("worst_within", 100.0, "{:.0f}"), ("cosine", 1.0, "{:.3f}")]
        header = ["method"]
        for what in ("1 to 8 px", "parts of a pixel"):
            header += [f"{what}: median, px / within 0.5 px, %", "at the worst shift", "cosine"]
        rows = []
        for method in self.methods("shift"):
            row = [NAMES[method]]
            for name in ("whole-pixels", "fractions"):
                result = self.result("shift", method, name)
                texts = ["-"] * 5 if result is None else [_number(result, *column) for column in columns]
                row += [f"{texts[0]} / {texts[1]}", f"{texts[2]} / {texts[3]}", texts[4]]
            rows.append(row)
        return table(header, rows)

    def noise(self) -> str:
        """Position noise of frames that follow each other."""
        sources = [("icl", "of_kt3_start-gap-1", "icl-nuim (exact)"), ("rooms", "normal-gap-1", "rendered room")]
        sources += [("rooms", "low-gap-1", "rendered room, low texture"), ("noise", "gap-1", "redkitchen")]
        sources += [("cabinet", "gap-1", "fr3_cabinet")]
        known = [source for source in sources if source[0] in self.evaluations]
        header = ["method", *(f"{label}: median / 90 %, along / across, px" for _, _, label in known)]
        names = ["noise_px", "noise_p90_px"], ["noise_along_px", "noise_across_px"]
        rows = []
        for method in self.methods("noise"):
            found = [self.result(kind, method, set_name) for kind, set_name, _ in known]
            cells = [", ".join(figures(result, pair, scale=1.0, digits=2) for pair in names) for result in found]
            rows.append([NAMES[method], *cells])
        return table(header, rows)

    def photos(self) -> str:
        """Pose and epipolar distance on posed photos."""
        sets = list(self.evaluations["photos"].sets)
        header = ["method", *(f"{name}: pose AUC@5/10/20°, mean epipolar distance, px" for name in sets)]
        rows = []
        for method in self.methods("photos"):
            found = [self.result("photos", method, name) for name in sets]
            angles = [f"auc@{angle}" for angle in (5, 10, 20)]
            cells = [
                f"{figures(result, angles)}, {figures(result, ['epipolar_px'], scale=1.0, digits=2)}"
                for result in found
            ]
            rows.append([NAMES[method], *cells])
        return table(header, rows)

    def negatives(self) -> str:
        """Keypoints where there is nothing."""
        sets = ("blank", "gradient", "noise", "defocus")
        rows = []
        for method in self.methods("negatives"):
            found = [self.result("negatives", method, name) for name in sets]
            photos = self.result("negatives", method, "photos")
            cells = [figures(result, ["keypoints"], scale=1.0, digits=0) for result in found]
            rows.append([NAMES[method], *cells, figures(photos, ["on_photos"], scale=1.0, digits=0)])
        return table(["method", *(f"{name}, keypoints per image" for name in sets), "photos"], rows)

    def localisation(self) -> str:
        """Share within 1 px and median error per pattern."""
        patterns = ("l-corner", "x-junction", "y-junction", "blob")
        rows = []
        for method in self.methods("localisation"):
            row = [NAMES[method]]
            for pattern in patterns:
                result = self.result("localisation", method, pattern)
                assert result is not None
                values = result.metrics
                row.append(f"{100 * values['within_1px']:.0f} % / {values['median_px']:.2f} / {values['bias_px']:.2f}")
            rows.append(row)
        return table(["method", *(f"{name}: within 1 px / median / bias, px" for name in patterns)], rows)

    def speed(self) -> str:
        """Time, ratio and memory at 640x480."""
        rows = []
        for method in self.methods("speed"):
            result = self.result("speed", method, "640x480")
            assert result is not None
            values = result.metrics
            low, high = result.intervals.get("extract_ratio", (float("nan"), float("nan")))
            rows.append(
                [
                    NAMES[method],
                    f"{values['extract_ms']:.1f}",
                    f"{values['extract_ratio']:.2f} ({low:.2f} to {high:.2f})",
                    f"{values['match_ms']:.1f}",
                    f"{values['memory_mb']:.0f}",
                ]
            )
        return table(["method", "extraction, ms", "ratio to XFeat", "matching, ms", "memory, MB"], rows)

    def odometry(self) -> str:
        """Errors and share of frames tracked of the RGB-D odometry."""
        rows = []
        for kind, sequence in (
            ("cabinet-odometry", "TUM fr3_cabinet, 58 frames 0.67 s apart"),
            ("redkitchen-odometry", "7-Scenes redkitchen, 334 frames"),
        ):
            for method in self.methods(kind):
                values = next(iter(self.evaluations[kind].results[method].values())).metrics
                rpe = [values["rpe_trans_rmse_m"], values["rpe_rot_rmse_deg"]]
                ate = f"{values['ate_rmse_m']:.4f}"
                row = [
                    sequence,
                    NAMES[method],
                    f"{100 * values['tracked']:.1f} %",
                    ate,
                    f"{rpe[0]:.4f}",
                    f"{rpe[1]:.2f}",
                ]
                rows.append(row)
        return table(["sequence", "features", "tracked", "ATE RMSE, m", "RPE, m", "RPE, °"], rows)

    def slam(self) -> str:
        """ATE of all features on all sequences, the best bold; frames that were lost are told."""
        evaluation = self.evaluations["slam"]
        metric = next(metric for metric in evaluation.metrics if metric.name == "ate_rmse_m")
        methods = self.methods("slam")
        evaluation = replace(evaluation, methods={method: evaluation.methods[method] for method in methods})
        _, lines, marks = overview(evaluation, metric)
        rows = []
        for line, of_line in zip(lines, marks, strict=True):
            row = [SEQUENCES.get(line[0], line[0])]
            for method, text, mark in zip(methods, line[1:], of_line[1:], strict=True):
                tracked = self.tracked("slam", method, line[0])
                row.append((f"**{text}**" if mark == "best" else text) + ("" if tracked is None else f", {tracked}"))
            rows.append(row)
        return table(["ATE, m", *(NAMES[method].strip("*") for method in methods)], rows)

    def tracked(self, kind: str, method: str, set_name: str) -> str | None:
        """Share of the frames that were tracked, None for all of them or where nothing was run."""
        result = self.evaluations[kind].results[method].get(set_name)
        share = 1.0 if result is None else result.metrics["tracked"]
        return None if share > 0.9995 else f"{100 * share:.1f} % tracked"

    def slam_runs(self) -> str:
        """Everything that is measured of every method on every sequence."""
        header = ["sequence", "features", "tracked", "ATE, m", "best to worst run", "RPE, m", "RPE, °", "drift"]
        header += ["frames/s", "memory, MB"]
        columns = [("tracked", 100.0, "{:.1f} %"), ("ate_rmse_m", 1.0, "{:.4f}")]
        rest = [("rpe_trans_m", 1.0, "{:.4f}"), ("rpe_rot_deg", 1.0, "{:.3f}"), ("drift_percent", 1.0, "{:.2f} %")]
        rest += [("fps", 1.0, "{:.1f}"), ("peak_mb", 1.0, "{:.0f}")]
        rows = []
        for name in self.evaluations["slam"].sets:
            for method in self.methods("slam"):
                result = self.evaluations["slam"].results[method].get(name)
                if result is None:
                    continue
                cells = [_number(result, *column) for column in columns]
                ends = (_number(result, end, 1.0, "{:.4f}") for end in ("ate_lowest_m", "ate_highest_m"))
                numbers = [*cells, " to ".join(ends), *(_number(result, *one) for one in rest)]
                rows.append([SEQUENCES.get(name, name), NAMES[method], *numbers])
        return table(header, rows)

    def lines(self) -> str:
        """ATE with and without lines: after all corrections, and as known at the time."""
        evaluation = self.evaluations["lines"]
        methods = list(evaluation.results)
        rows = []
        for name in evaluation.sets:
            row = [SEQUENCES.get(name, name)]
            for method in methods:
                result = evaluation.results[method][name]
                text = figures(result, ["ate_rmse_m", "ate_live_rmse_m"], digits=2)
                tracked = self.tracked("lines", method, name)
                row.append(text + ("" if tracked is None else f" ({tracked})"))
            rows.append(row)
        return table(["", *(method.replace("+", " + ") for method in methods)], rows)

    def reliability(self) -> str:
        """How well scores and reliabilities rank."""
        columns = [
            ("AUROC of score", "auroc_score", 1.0, 3),
            ("of reliability", "auroc_reliability", 1.0, 3),
            ("of their product", "auroc_product", 1.0, 3),
            ("precision of the best 512 by score, %", "precision_by_score", 100.0, 1),
            ("by score x reliability, %", "precision_by_product", 100.0, 1),
        ]
        rows = []
        for method in self.methods("reliability"):
            for name, result in self.evaluations["reliability"].results[method].items():
                cells = [figures(result, [key], scale=scale, digits=digits) for _, key, scale, digits in columns]
                rows.append([NAMES[method], name, *cells])
        return table(["method", "set", *(column[0] for column in columns)], rows)


def _number(result: SetResult, name: str, scale: float, pattern: str) -> str:
    value = result.metrics.get(name, math.nan)
    return "-" if math.isnan(value) else pattern.format(scale * value)


def fill(text: str, make: Callable[[str], str | None]) -> str:
    """The text with every marked table replaced by ``make(name)``, or kept where that is None."""
    pattern = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?\n)(<!-- end of table -->)", re.DOTALL)

    def replaced(found: re.Match[str]) -> str:
        made = make(found[2])
        return found[0] if made is None else f"{found[1]}{made}\n{found[4]}"

    return pattern.sub(replaced, text)


def pages(results: Path = RESULTS) -> Mapping[Path, str]:
    """What the pages should say."""
    tables = Tables(results)
    return {page: fill(page.read_text(encoding="utf-8"), tables.make) for page in PAGES}


def main() -> None:
    """Collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--only", default="", help="methods between commas, each also with +lines")
    args = parser.parse_args()
    if args.run:
        collect(args.run, [name for name in args.only.split(",") if name])
    for page, text in pages().items():
        atomic_write_text(page, text)


if __name__ == "__main__":
    main()
