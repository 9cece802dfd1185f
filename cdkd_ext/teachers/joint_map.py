"""Which joints of a teacher teach which joints of a student: by their names."""

from __future__ import annotations

from dataclasses import dataclass

from cdkd_ext.errors import check, fail
from cdkd_ext.joint_sides import split_side
from cdkd_ext.joints import JointSet

# other words for a joint, the nearest first; each stands without a side
_ALIASES = {
    "neck": ("necklower", "neckbase", "upperneck", "uppneck"),
    "upperneck": ("uppneck", "neck"),
    "thorax": ("chest", "neckbase", "necklower"),
    "headtop": ("tophead", "topofhead", "topofthehead", "crown", "vertex", "head"),
    "head": ("headtop", "tophead"),
    "pelvis": ("midhip", "hipcenter", "hipcentre", "hipsmid", "root", "hips"),
    "midhip": ("pelvis", "hipcenter", "root", "hips"),
    "root": ("pelvis", "midhip", "hipcenter", "hips"),
    "hipcenter": ("pelvis", "midhip", "root", "hips"),
}
# what the middle of two joints stands for
_MIDDLES = {
    "neck": "shoulder",
    "thorax": "shoulder",
    "chest": "shoulder",
    "necklower": "shoulder",
    "neckbase": "shoulder",
    "pelvis": "hip",
    "midhip": "hip",
    "hipcenter": "hip",
    "root": "hip",
    "hips": "hip",
}
_Key = tuple[str | None, str]


@dataclass(frozen=True)
class JointMap:
    """Where each joint of a student comes from.

    Args:
        student: the student's joints.
        teacher: the teacher's.
        sources: for each of the student's joints one index of the teacher's, two whose middle it is, or none.

    Example:
        >>> from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
        >>> from cdkd_ext.teachers import JointMap
        >>> mapping = JointMap.by_name(MPII_JOINTS, COCO_JOINTS)
        >>> mapping.sources[MPII_JOINTS.names.index("pelvis")]
        (11, 12)
    """

    student: JointSet
    teacher: JointSet
    sources: tuple[tuple[int, ...], ...]

    @classmethod
    def by_name(cls, student: JointSet, teacher: JointSet, argument: str = "teacher") -> JointMap:
        """Match joints by name and side, then by other names, then as the middle of two.

        Spelling, case and separators of names and sides make no difference. `argument` is what messages call the teacher.

        Raises:
            InputError: no joint matches, or sides and mirror pairs contradict each other.
        """
        _check_sides("joints of the data", student)
        _check_sides("joints of the teacher" if argument == "teacher" else argument, teacher)
        places: dict[_Key, int] = {}
        for index, name in enumerate(teacher.names):
            places.setdefault(_key(name), index)
        mapping = cls(student, teacher, tuple(_sources(_key(name), places) for name in student.names))
        names = ", ".join(student.names)
        shown = f"the joints {', '.join(teacher.names)}"
        check(
            any(mapping.sources),
            argument,
            shown,
            f"joints of the data ({names}), by name or another name for them",
        )
        mapping._check_mirror_pairs(argument)
        return mapping

    @property
    def is_identity(self) -> bool:
        """Whether both have the same joints in the same order."""
        return self.sources == tuple((j,) for j in range(len(self.teacher)))

    def __str__(self) -> str:
        """One line: what comes from what."""
        same: list[str] = []
        other: list[str] = []
        nothing: list[str] = []
        for name, sources in zip(self.student.names, self.sources, strict=True):
            names = [self.teacher.names[source] for source in sources]
            if names == [name]:
                same.append(name)
            elif names:
                other.append(
                    f"{name} from "
                    + (names[0] if len(names) == 1 else f"the middle of {' and '.join(names)}")
                )
            else:
                nothing.append(name)
        parts = [", ".join(same)] if same else []
        parts += other
        if nothing:
            parts.append(f"nothing for {', '.join(nothing)}")
        return "; ".join(parts)

    def _check_mirror_pairs(self, argument: str) -> None:
        """A pair of the student's joints has to come from a pair of the teacher's."""
        for j, mirror in enumerate(self.student.flip_permutation):
            wanted = {self.teacher.flip_permutation[source] for source in self.sources[j]}
            if set(self.sources[mirror]) != wanted and self.sources[j] and self.sources[mirror]:
                pair = f"{self.student.names[j]} and {self.student.names[mirror]}"
                got = " and ".join(self.teacher.names[k] for k in (*self.sources[j], *self.sources[mirror]))
                fail(
                    argument,
                    f"{got}, which are no pair, for {pair}",
                    "mirror pairs that agree with the data's",
                )


def _sources(key: _Key, places: dict[_Key, int]) -> tuple[int, ...]:
    side, stem = key
    for word in (stem, *_ALIASES.get(stem, ())):
        if (side, word) in places:
            return (places[side, word],)
    ends = tuple((end, _MIDDLES.get(stem, "")) for end in ("left", "right"))
    if side is None and all(end in places for end in ends):
        return tuple(places[end] for end in ends)
    return ()


def _key(name: str) -> _Key:
    side, stem = split_side(name)
    return side, "".join(filter(str.isalnum, stem.lower()))


def _check_sides(which: str, joints: JointSet) -> None:
    """Fail where a joint with a side mirrors itself, or a joint of the same side."""
    for name, mirror in zip(joints.names, joints.flip_permutation, strict=True):
        (side, stem), (other, other_stem) = _key(name), _key(joints.names[mirror])
        fine = side is None or (other not in (side, None) and stem == other_stem)
        check(
            fine,
            which,
            f"{name} as the mirror image of {joints.names[mirror]}",
            "one of the other side",
        )
