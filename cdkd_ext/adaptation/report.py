"""What an adaptation changed: a table, curves, and images of what the network says before and after."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cdkd_ext.adaptation.config import AdaptationConfig
from cdkd_ext.adaptation.measuring import Labels, Measured, Watched, measured, report_heights
from cdkd_ext.adaptation.resolutions import shown
from cdkd_ext.evaluation.accuracy import ACCURACY_NAMES
from cdkd_ext.evaluation.agreement import SURE
from cdkd_ext.files import replacing, write_json
from cdkd_ext.images import Image, encode_image
from cdkd_ext.inference import draw_pose, enlarge, enlarge_points, tile
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import ForeignTeacher, TeacherOptions
from cdkd_ext.teachers.network import CropNetwork

_PEOPLE = 8  # in the images
_SIDE = 208  # pixels of a tile's longer side


@dataclass(frozen=True)
class AdaptationReport:
    """What an adaptation changed.

    Attributes:
        before: the unchanged network at each resolution, then perhaps with camera faults at each.
        after: the adapted one.
        metric: "PCKh@0.5" or "AR"; None where there are no labels.
        teacher: accuracy of the teacher at full resolution.
        people: how many were measured.
        options: model, teacher, size and steps.
        history: records of the training.
        images: people before and after, and curves, as PNG files.
    """

    before: list[Measured]
    after: list[Measured]
    metric: str | None
    teacher: float
    people: int
    options: dict[str, Any]
    history: list[dict[str, Any]]
    images: dict[str, bytes] = field(repr=False)

    def rows(self) -> list[list[str]]:
        """The table's cells, its head first."""
        head = ["crop's height", "agreement before", "after", "confidence before", "after"]
        if self.metric is not None:
            head[1:1] = [f"{self.metric} before", "after"]
        rows = [head]
        for before, after in zip(self.before, self.after, strict=True):
            row = [shown(before.height) + (", faults" if before.faults else "")]
            if self.metric is not None:
                row += [_number(before.accuracy), _number(after.accuracy)]
            row += [_number(before.agreement), _number(after.agreement)]
            rows.append([*row, f"{before.confidence:.2f}", f"{after.confidence:.2f}"])
        return rows

    def summary(self) -> str:
        """What was measured, in a sentence or two."""
        text = (
            f"{self.people} people; agreement is with the teacher at full resolution, on the joints that it is sure of "
            f"(confidence from {SURE:g}), within a twentieth of the crop"
        )
        if self.metric is None:
            text += "; there are no labels, and these people decided which weights were kept"
        else:
            text += f"; the teacher's own {self.metric} is {_number(self.teacher)}"
        return text + self._warning()

    def _warning(self) -> str:
        """What to say where the network was better before; empty where it was not."""
        agreements = [record["agreement"] for record in self.history if "agreement" in record]
        if len(agreements) < 2 or max(agreements[1:]) > agreements[0]:
            return ""
        return (
            ". KEEP THE OLD FILE: on the people kept aside no adapted weights agree with the teacher more than the unchanged "
            f"ones ({agreements[0]:.1f} before, at best {max(agreements[1:]):.1f} after)"
        )

    def __str__(self) -> str:
        """The table as text."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join([*lines, self.summary()])


def measure_change(
    config: AdaptationConfig,
    networks: tuple[CropNetwork, CropNetwork],
    joints: JointSet,
    watched: Watched,
    labels: Labels | None,
    history: list[dict[str, Any]],
    progress: Callable[[str, int, int], None] | None = None,
) -> AdaptationReport:
    """Measure a network before and after at the resolutions of the report.

    Args:
        config: the run.
        networks: before and after.
        joints: of the networks.
        watched: the people.
        labels: of the same people, if they have any.
        history: of the training.
        progress: called with what is done, and how many of how many predictions have been made.
    """
    options = TeacherOptions(flip=config.flip_test)
    pair = [ForeignTeacher(network, joints, options) for network in networks]
    heights = report_heights(watched.size, config.resolutions().watched())
    looked_at = config.resolutions().watched()[0] or min(32, watched.size[0])
    strengths = sorted({0.0, config.faults_in_report})
    total, done = len(pair) * len(strengths) * len(heights) * len(watched), 0

    def count(people: int) -> None:
        nonlocal done
        done += people
        if progress is not None:
            progress("measuring before and after", done, total)

    values: list[list[Measured]] = []
    drawn = []
    for network in pair:
        results = [
            measured(watched, network, height, labels, faults, count)
            for faults in strengths
            for height in heights
        ]
        values.append([result for result, *_ in results])
        found = [said for result, *said in results if (result.height, result.faults) == (looked_at, 0)]
        drawn.append(found[0] if found else measured(watched, network, looked_at, None)[1:])
    metric = None if labels is None else ACCURACY_NAMES[labels.metric]
    teacher = float("nan") if labels is None else labels.accuracy(watched.in_image(watched.keypoints))
    images = {
        "people": _people(watched, joints, drawn, looked_at),
        "curves": _curves(values, metric),
    }
    told = {
        name: getattr(config, name)
        for name in ("model", "teacher", "size", "full_share", "steps", "batch_size")
    }
    if strengths[-1] > 0:
        told["camera_faults"] = f"{config.data.camera_faults:g} learnt, {strengths[-1]:g} measured"
    return AdaptationReport(values[0], values[1], metric, teacher, len(watched), told, history, images)


def write_report(report: AdaptationReport, folder: Path) -> None:
    """Write report.json, and report.html, one page with everything in it."""
    values = asdict(report)
    values.pop("images")
    write_json(values, folder / "report.json")
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(_page(report), encoding="utf-8")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _people(watched: Watched, joints: JointSet, drawn: Sequence[Any], height: int) -> bytes:
    """Rows of people: the teacher at full resolution, and the network before and after on what it sees.

    Args:
        watched: the people.
        joints: of the keypoints.
        drawn: keypoints (N, J, 2) and confidence (N, J), before and after.
        height: of the crops that the network sees.
    """
    chosen = sorted({int(index) for index in np.linspace(0, len(watched) - 1, min(_PEOPLE, len(watched)))})
    size = watched.size
    large = (round(_SIDE * size[0] / max(size)), round(_SIDE * size[1] / max(size)))

    def pose(image: Image, points: Any, confidence: Any) -> Image:
        # of all three the joints that they are sure of: doubtful ones beside none would look worse
        sure = confidence >= SURE
        return draw_pose(enlarge(image, large), enlarge_points(points, size, large), joints, drawn=sure)

    rows = []
    for index in chosen:
        seen = watched.crop(index, height)
        teacher = pose(watched.crop(index, None), watched.keypoints[index], watched.confidence[index])
        said = (pose(seen, points[index], confidence[index]) for points, confidence in drawn)
        rows.append([teacher, enlarge(seen, large), *said])
    # two people beside each other
    pairs = [left + right for left, right in zip(rows[::2], rows[1::2], strict=False)] or rows
    titles = ["teacher, full resolution", f"{height} pixels", "before", "after"]
    return encode_image(tile(pairs, titles * (len(pairs[0]) // len(titles))), ".png")


def _curves(values: Sequence[Sequence[Measured]], metric: str | None) -> bytes:
    """Accuracy and agreement over the resolution, before and after."""
    matplotlib.use("Agg")
    kinds = ([("accuracy", metric)] if metric else []) + [("agreement", "agreement with the teacher")]
    figure = Figure(figsize=(4.6 * len(kinds), 3.4), layout="constrained")
    for place, (name, title) in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        for which, color, measurements in zip(
            ("before", "after"), ("#90a4ae", "#e65100"), values, strict=True
        ):
            for faulty, line, added in ((False, "o-", ""), (True, "o:", ", camera faults")):
                chosen = [one for one in measurements if bool(one.faults) == faulty]
                if chosen:
                    heights = [shown(one.height) for one in chosen]
                    levels = [getattr(one, name) for one in chosen]
                    axes.plot(heights, levels, line, color=color, label=which + added)
        axes.set(title=title, xlabel="pixels of the crop's height", ylabel="percent")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _page(report: AdaptationReport) -> str:
    head, *rows = ([html.escape(cell) for cell in row] for row in report.rows())
    body = "\n".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
    told = "; ".join(
        f"{name} {html.escape(str(value) or 'itself')}" for name, value in report.options.items()
    )
    pictures = {name: base64.b64encode(content).decode() for name, content in report.images.items()}
    images = "\n".join(
        f'<img alt="{name}" src="data:image/png;base64,{text}">' for name, text in pictures.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Adaptation</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ccc; }}
img {{ max-width: 100%; margin-top: 1.5em; display: block; }}
</style></head><body>
<h1>Adapted to see from afar</h1>
<p>{told}</p>
<table><tr><th>{"</th><th>".join(head)}</th></tr>
{body}
</table>
<p>{html.escape(report.summary())}.</p>
{images}
</body></html>
"""
