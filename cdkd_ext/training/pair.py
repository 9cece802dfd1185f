"""Whether a student, a teacher and the terms between them fit; every misfit is one sentence."""

from __future__ import annotations

from typing import Any, cast

from cdkd_ext.distillation import (
    CCA,
    SAPE,
    DescribedNetwork,
    FeatureAlignment,
    HeatmapCCA,
    TeacherSpec,
)
from cdkd_ext.errors import check, check_type
from cdkd_ext.methods import LabelLoss, Teaching
from cdkd_ext.models import ModelSpec


def spec_of(teacher: object) -> TeacherSpec | None:
    """What is fixed about the outputs of a network or a teacher; None where it does not say it."""
    if hasattr(teacher, "teacher_spec"):
        return cast(TeacherSpec, teacher.teacher_spec)
    described = hasattr(teacher, "spec") and hasattr(teacher, "feature_size")
    return TeacherSpec.of(cast(DescribedNetwork, teacher)) if described else None


def check_pair(student: DescribedNetwork, other: TeacherSpec) -> None:
    """Fail unless both networks predict the same joints on crops of the same aspect ratio.

    Raises:
        InputError: the number or the names of the joints, or the aspect ratios differ.
    """
    own = student.spec
    check(
        own.num_joints == other.num_joints,
        "teacher",
        f"{other.num_joints} joints",
        f"the student's {own.num_joints}",
    )
    if own.joints is not None and other.joints is not None:
        names = ", ".join(own.joints.names)
        check(
            own.joints.names == other.joints.names,
            "teacher",
            f"the joints {', '.join(other.joints.names)}",
            f"the student's joints {names}",
        )
    (height, width), (teacher_height, teacher_width) = own.input_size, other.input_size
    check(
        height * teacher_width == width * teacher_height,
        "teacher",
        f"crops of {other.input_size}",
        f"the aspect ratio of the student's crops of {own.input_size}",
    )


def channels_agree(student: DescribedNetwork, teacher: TeacherSpec) -> bool:
    """Whether both have a last feature map, of as many channels, which SAPE needs."""
    return 0 < student.spec.feature_channels == teacher.feature_channels


def can_be_aligned(student: DescribedNetwork, teacher: TeacherSpec) -> bool:
    """Whether the student has classes or heatmaps and the teacher distributions, which CCA aligns."""
    return aligns(student) and teacher.num_bins is not None


def aligns(student: DescribedNetwork) -> bool:
    """Whether the student has classes or heatmaps, which CCA aligns."""
    method = student.spec.method
    return method.has_classes or method.has_heatmaps


def check_label_loss(student: DescribedNetwork, label_loss: LabelLoss) -> None:
    """Fail unless the loss from labels is one of the student's method and sizes.

    Raises:
        InputError: the loss is of another method, of another split ratio or of another crop size.
        TypeError: it is no loss from labels.
    """
    spec = student.spec
    expected = f"a {spec.method.loss.__name__}"
    check_type("label_loss", label_loss, LabelLoss, expected)
    got = type(label_loss).__name__
    check(label_loss.name == spec.method.name, "label_loss", f"a {got}", f"{expected} for a {spec.head} head")
    label_loss.check_student(spec)


def check_sape(student: DescribedNetwork, teacher: TeacherSpec | None, sape: FeatureAlignment) -> None:
    """Fail unless the feature term leads from the student's feature map to the teacher's.

    Raises:
        InputError: channels or sizes differ.
    """
    got = (sape.channels, *sape.student_size)
    expected = (student.spec.feature_channels, *student.feature_size)
    check(got == expected, "sape", f"one for a student feature of {got}", f"one for the student's {expected}")
    if teacher is not None:
        got = (sape.channels, *sape.teacher_size)
        expected = (teacher.feature_channels, *teacher.feature_size)
        check(
            got == expected,
            "sape",
            f"one for a teacher feature of {got}",
            f"one for the teacher's {expected}",
        )


def check_cca(student: DescribedNetwork, teacher: TeacherSpec | None) -> None:
    """Fail unless the teacher has distributions, and the student classes or heatmaps; any two counts can be aligned.

    Raises:
        InputError: one of them has none.
    """
    without = {
        "student": not aligns(student),
        "teacher": teacher is not None and teacher.num_bins is None,
    }
    for which, refused in without.items():
        got = f"a CCA for a {which} {what_without_classes(student, which)}"
        check(not refused, "cca", got, "None: CCA aligns classes and heatmaps")


def what_without_classes(student: DescribedNetwork, which: str) -> str:
    """What a student or teacher is that has neither classes nor heatmaps, in words."""
    return "without distributions" if which == "teacher" else f"of the method {student.spec.method.name}"


def sape_between(student: DescribedNetwork, teacher: TeacherSpec, **options: Any) -> SAPE:
    """The feature term between two networks whose channels agree, with the options of `SAPE`."""
    return SAPE(student.spec.feature_channels, student.feature_size, teacher.feature_size, **options)


def cca_between(student: DescribedNetwork, teacher: object, phase: str = "paper") -> CCA:
    """The logit term: with the phase between SimCC classes of this package, else with the exact offset of the bins."""
    spec = spec_of(teacher)
    if student.spec.method.has_heatmaps:
        height, width = student.feature_size
        return HeatmapCCA("centered") if spec is None else HeatmapCCA(offset=spec.offset((width, height)))
    own = getattr(teacher, "spec", None)
    if spec is None or (isinstance(own, ModelSpec) and own.method.has_classes):
        return CCA(phase)
    return CCA(offset=spec.offset(student.spec.num_bins))


def check_teaching(student: DescribedNetwork, teacher: object, teaching: Teaching) -> None:
    """Check that two networks can be student and teacher of a method's own distillation.

    Raises:
        TypeError: it is none.
        InputError: it is one of other networks.
    """
    check_type("teaching", teaching, Teaching, "a Teaching, None or 'auto'")
    spec = getattr(teacher, "spec", None)
    if isinstance(spec, ModelSpec):
        teaching.check_pair(student.spec, spec)


def teaching_between(student: DescribedNetwork, teacher: object) -> Teaching | None:
    """The own distillation of the student's method from the teacher's, if there is one.

    Raises:
        InputError: the teacher's method fits, and its crops or patches do not.
    """
    spec = getattr(teacher, "spec", None)
    return student.spec.method.teaching(student.spec, spec) if isinstance(spec, ModelSpec) else None
